//! One door per dependency: DNS, HTTPS, TLS, TCP, the clock, chance. The stories get them as a [`World`], the real ones
//! in production, a small Internet in tests.

pub mod dns;
pub mod guard;
pub mod https;
pub mod tcp;
pub mod tls;
pub mod world;

#[cfg(test)]
mod testing;

pub use world::{Clock, Randomness, SystemClock, SystemRandomness, World};
