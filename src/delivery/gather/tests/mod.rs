//! Gathering over a world in memory: DNS, HTTPS, policy cache and tally are maps, time is paused.

mod policies;
mod radar;
mod routes;
mod tlsa;
mod validator;
mod world;
