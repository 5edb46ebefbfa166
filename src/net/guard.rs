//! Which addresses we may connect to: nothing that is not globally routable, but for what
//! `network.allow_private_destinations` lists. Applied to the address actually dialled.

use std::net::IpAddr;

use ipnet::IpNet;

/// The address guard. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AddressGuard {
    allowed: std::sync::Arc<[IpNet]>,
}

impl AddressGuard {
    /// `allowed` are the exceptions.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether `ip` may be connected to; the error says why not.
    ///
    /// # Errors
    /// One sentence naming the address, its kind, and the setting that would allow it.
    pub fn check(&self, ip: IpAddr) -> Result<(), String> {
        let _ = &self.allowed;
        todo!()
    }
}
