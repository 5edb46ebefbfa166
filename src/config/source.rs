//! How a source address is written: `"192.0.2.1"`, or a table with its own name in EHLO.
//!
//! Pure; shows itself in the form it was written in.

use std::fmt;
use std::net::IpAddr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mail::Domain;

/// One of `delivery.source_addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceAddress {
    /// The local address.
    pub address: IpAddr,
    /// Our name in EHLO from there; without one `server.hostname`.
    pub hostname: Option<Domain>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    address: IpAddr,
    #[serde(default)]
    hostname: Option<Domain>,
}

impl Serialize for SourceAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.hostname {
            None => serializer.collect_str(&self.address),
            Some(_) => Table { address: self.address, hostname: self.hostname.clone() }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SourceAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = SourceAddress;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"192.0.2.1\", or { address = \"...\", hostname = \"...\" }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<SourceAddress, E> {
                let address = text.parse().map_err(|_| {
                    E::custom(format!(
                        "{text:?} is not an address; write it like \"192.0.2.1\" or \"2001:db8::1\""
                    ))
                })?;
                Ok(SourceAddress { address, hostname: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SourceAddress, A::Error> {
                let Table { address, hostname } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(SourceAddress { address, hostname })
            }
        }
        deserializer.deserialize_any(Either)
    }
}
