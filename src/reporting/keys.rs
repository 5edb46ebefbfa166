//! Looks our own key records up, as a verifier would, and says what is wrong with them (RFC 6376 §3.6.2).
//!
//! Never keeps a report from going out: it warns. Called by `config check` and, once it runs, by `daemon`.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::dkim::Signer;
use super::dkim::published::compare;
use crate::net::dns::{Dns, Lookup};

/// All lookups together take no longer.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// What is wrong with the published halves of these keys, a sentence each with the key it is of.
pub async fn check<'a>(dns: &dyn Dns, signers: &'a [Signer]) -> Vec<(&'a Signer, String)> {
    let found = join_all(signers.iter().map(|signer| of_one(dns, signer))).await;
    let of_each = signers.iter().zip(found);
    of_each.flat_map(|(signer, texts)| texts.into_iter().map(move |text| (signer, text))).collect()
}

async fn of_one(dns: &dyn Dns, signer: &Signer) -> Vec<String> {
    let service = format!("{}._domainkey", signer.selector());
    let Ok(name) = signer.domain().prefixed(&service) else {
        return vec![format!("DKIM: {service}.{} is too long for a name in DNS", signer.domain())];
    };
    let not_checked = |why: &str| vec![format!("DKIM key at {name}: not checked, the lookup failed ({why})")];
    let txts = match timeout(LOOKUP_MAX, dns.txt(&name)).await {
        Err(_) => return not_checked(&format!("no answer within {} s", LOOKUP_MAX.as_secs())),
        Ok(Lookup::Failed(failure)) => return not_checked(&failure.to_string()),
        Ok(Lookup::NoData(_) | Lookup::NxDomain(_)) => Vec::new(),
        Ok(Lookup::Found(answer)) => answer.records,
    };
    compare(&txts, signer.public())
        .into_iter()
        .map(|trouble| match trouble.wants_record() {
            true => format!(
                "DKIM key at {name}: {trouble}; the key file's record is \"{}\"",
                signer.public().record()
            ),
            false => format!("DKIM key at {name}: {trouble}"),
        })
        .collect()
}
