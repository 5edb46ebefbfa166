//! What we offer in a ClientHello, and what we answer to an old one (RFC 9325, RFC 8996), octet by octet.

use super::*;

/// Reads numbers and vectors off the wire.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, octets: usize) -> usize {
        self.take(octets).iter().fold(0, |number, octet| (number << 8) | usize::from(*octet))
    }

    /// A vector whose length is in so many octets.
    fn vector(&mut self, octets: usize) -> Self {
        let length = self.number(octets);
        Self(self.take(length))
    }

    fn numbers(mut self) -> Vec<usize> {
        let mut out = Vec::new();
        while !self.0.is_empty() {
            out.push(self.number(2));
        }
        out
    }
}

/// RFC 8446 §4.1.2.
struct Hello {
    suites: Vec<usize>,
    compression: Vec<u8>,
    extensions: Vec<(usize, Vec<u8>)>,
}

impl Hello {
    async fn of_ours() -> Self {
        let ca = Ca::new();
        let (near, mut far) = duplex(64 * 1024);
        let client = client(&ca);
        let shaking = tokio::spawn(async move {
            let _ = client.handshake(Box::new(near), &domain(NAME), &domain(NAME)).await;
        });
        let mut header = [0; 5];
        far.read_exact(&mut header).await.unwrap();
        let mut record = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        far.read_exact(&mut record).await.unwrap();
        drop(far);
        shaking.await.unwrap();
        assert_eq!((header[0], record[0]), (22, 1), "a ClientHello");
        let mut hello = Octets(&record[1..]).vector(3);
        hello.take(2 + 32);
        hello.vector(1);
        let suites = hello.vector(2).numbers();
        let compression = hello.vector(1).0.to_vec();
        let mut rest = hello.vector(2);
        let mut extensions = Vec::new();
        while !rest.0.is_empty() {
            let kind = rest.number(2);
            extensions.push((kind, rest.vector(2).0.to_vec()));
        }
        Self { suites, compression, extensions }
    }

    fn extension(&self, kind: usize) -> Option<&[u8]> {
        self.extensions.iter().find(|(other, _)| *other == kind).map(|(_, data)| data.as_slice())
    }
}

#[tokio::test]
async fn we_offer_nothing_that_rfc_9325_forbids() {
    let hello = Hello::of_ours().await;
    // §3.1.1: TLS 1.3, then 1.2, and nothing older.
    let versions = Octets(hello.extension(43).unwrap()).vector(1).numbers();
    assert_eq!(versions, [0x0304, 0x0303]);
    // §4.1, §4.2: ephemeral elliptic curves with AES-GCM or ChaCha20; 0x00ff tells of RFC 5746.
    let good = [0x1301, 0x1302, 0x1303, 0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9, 0x00ff];
    assert!(hello.suites.iter().all(|suite| good.contains(suite)), "{:x?}", hello.suites);
    for needed in [0x1301, 0xc02b, 0xc02f] {
        assert!(hello.suites.contains(&needed), "{needed:x}");
    }
    // §3.3: no compression.
    assert_eq!(hello.compression, [0]);
    // §3.5: secure renegotiation and the extended master secret.
    assert!(hello.suites.contains(&0x00ff) || hello.extension(0xff01).is_some());
    assert!(hello.extension(23).is_some());
    // §4.5: elliptic curves of 224 bits and more, and the hybrid; no finite fields (0x0100 and on).
    let groups = Octets(hello.extension(10).unwrap()).vector(2).numbers();
    assert!(
        groups.iter().all(|group| [23, 24, 25, 29, 30, 0x11ec, 0x11eb, 0x11ed].contains(group)),
        "{groups:x?}"
    );
    assert!(groups.contains(&23) && groups.contains(&29), "{groups:x?}");
    // §4.5: neither MD5 (0x01..) nor SHA-1 (0x02..) nor SHA-224 signatures.
    let signatures = Octets(hello.extension(13).unwrap()).vector(2).numbers();
    assert!(signatures.iter().all(|scheme| !(0x0100..0x0400).contains(scheme)), "{signatures:x?}");
    // §3.10: no early data, also with a ticket at hand; see `sessions`.
    assert!(hello.extension(42).is_none());
    // RFC 7671 §5.1: no raw public keys (RFC 7250), which no PKIX certificate goes with.
    assert!(hello.extension(19).is_none() && hello.extension(20).is_none());
    // RFC 6066 §3: the host's name.
    assert!(hello.extension(0).unwrap().ends_with(NAME.as_bytes()));
}

#[tokio::test]
async fn a_client_of_tls_1_1_or_1_0_is_turned_away() {
    for version in [1u8, 2] {
        let acceptor = Ca::new().leaf(&[NAME]).acceptor(&[&TLS13, &TLS12]);
        let (mut near, far) = duplex(64 * 1024);
        let server = tokio::spawn(async move { acceptor.accept(far).await.is_err() });
        // RFC 4346 §7.4.1.2: version, random, no session, one suite, no compression, no extension.
        let mut hello = vec![3, version];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0x00, 0x2f, 1, 0]);
        let length = u8::try_from(hello.len()).unwrap();
        let mut record = vec![22, 3, version, 0, length + 4, 1, 0, 0, length];
        record.extend(hello);
        near.write_all(&record).await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        // A fatal alert, and nothing of a handshake.
        assert_eq!((answer.len(), answer[0], answer[5]), (7, 21, 2), "{answer:?}");
        assert!(server.await.unwrap());
    }
}

#[tokio::test]
async fn a_stream_cut_without_close_notify_is_an_error_and_no_end() {
    let ca = Ca::new();
    let acceptor = ca.leaf(&[NAME]).acceptor(&[&TLS13]);
    let (near, far) = duplex(64 * 1024);
    let server = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await.unwrap();
        stream.write_all(b"250 par").await.unwrap();
        stream.flush().await.unwrap();
        // RFC 8446 §6.1: the connection goes away without the alert.
        drop(stream.into_inner());
    });
    let (mut stream, _) = client(&ca).handshake(Box::new(near), &domain(NAME), &domain(NAME)).await.unwrap();
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).await.unwrap_err();
    assert_eq!((all.as_slice(), error.kind()), (&b"250 par"[..], std::io::ErrorKind::UnexpectedEof));
    server.await.unwrap();
}
