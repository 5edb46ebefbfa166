//! The domains of the demo: what is there, and what must become of mail to them.

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// A host took it.
    Delivered,
    /// It is in the queue, for a retry.
    Waits,
    /// It was given up, and its sender told.
    Bounced,
}

/// What the domain publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// Nothing.
    Nothing,
    /// An MTA-STS policy in this mode that lists the domain's hosts.
    Sts(&'static str),
    /// An MTA-STS policy in mode enforce that lists another host.
    StsForOthers,
    /// A TLSA record of the host's key.
    Tlsa,
    /// A TLSA record of another key.
    TlsaOfOthers,
    /// TLSA records that fail validation.
    TlsaBogus,
}

/// What a host is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// A certificate from the CA that everybody trusts.
    Sound,
    /// One that has expired.
    Expired,
    /// One for another name.
    WrongName,
    /// One signed by itself.
    SelfSigned,
    /// No STARTTLS.
    Clear,
    /// Sound, but knows no recipient.
    KnowsNobody,
}

/// A domain.
pub struct Scene {
    /// Its name.
    pub domain: &'static str,
    /// What is there, in words.
    pub about: &'static str,
    /// In its DNS and at its policy host.
    pub published: Published,
    /// Its MX hosts, in the order of preference.
    pub hosts: &'static [Host],
    /// What must become of mail to it.
    pub expected: Became,
}

/// All of them.
pub const SCENES: &[Scene] = &[
    Scene {
        domain: "enforce.test",
        about: "MTA-STS enforce, a sound host",
        published: Published::Sts("enforce"),
        hosts: &[Host::Sound],
        expected: Became::Delivered,
    },
    Scene {
        domain: "dane.test",
        about: "DANE: the host's own key in signed DNS",
        published: Published::Tlsa,
        hosts: &[Host::SelfSigned],
        expected: Became::Delivered,
    },
    Scene {
        domain: "second.test",
        about: "MTA-STS enforce, the first host's certificate expired",
        published: Published::Sts("enforce"),
        hosts: &[Host::Expired, Host::Sound],
        expected: Became::Delivered,
    },
    Scene {
        domain: "testing.test",
        about: "MTA-STS testing, a certificate for another name",
        published: Published::Sts("testing"),
        hosts: &[Host::WrongName],
        expected: Became::Delivered,
    },
    Scene {
        domain: "selfsigned.test",
        about: "no policy, a self-signed certificate",
        published: Published::Nothing,
        hosts: &[Host::SelfSigned],
        expected: Became::Delivered,
    },
    Scene {
        domain: "clear.test",
        about: "no policy, no STARTTLS",
        published: Published::Nothing,
        hosts: &[Host::Clear],
        expected: Became::Delivered,
    },
    Scene {
        domain: "stripped.test",
        about: "MTA-STS enforce, STARTTLS stripped on the way",
        published: Published::Sts("enforce"),
        hosts: &[Host::Clear],
        expected: Became::Waits,
    },
    Scene {
        domain: "expired.test",
        about: "MTA-STS enforce, the certificate expired",
        published: Published::Sts("enforce"),
        hosts: &[Host::Expired],
        expected: Became::Waits,
    },
    Scene {
        domain: "wrongname.test",
        about: "MTA-STS enforce, a certificate for another name",
        published: Published::Sts("enforce"),
        hosts: &[Host::WrongName],
        expected: Became::Waits,
    },
    Scene {
        domain: "hijacked.test",
        about: "MTA-STS enforce, MX record changed to a host not listed",
        published: Published::StsForOthers,
        hosts: &[Host::Sound],
        expected: Became::Waits,
    },
    Scene {
        domain: "otherkey.test",
        about: "DANE: another key in DNS than the host has",
        published: Published::TlsaOfOthers,
        hosts: &[Host::Sound],
        expected: Became::Waits,
    },
    Scene {
        domain: "bogus.test",
        about: "DANE: TLSA records that fail validation",
        published: Published::TlsaBogus,
        hosts: &[Host::Sound],
        expected: Became::Waits,
    },
    Scene {
        domain: "nobody.test",
        about: "no policy, a sound host, no such recipient",
        published: Published::Nothing,
        hosts: &[Host::KnowsNobody],
        expected: Became::Bounced,
    },
];

/// Hosts of all domains, and the sender's.
pub fn hosts() -> u8 {
    SCENES.iter().map(|scene| scene.hosts.len() as u8).sum::<u8>() + 1
}
