//! The way out of sandboxes: what leaves one arrives here, is judged, and is carried on from
//! this machine's own network (api.md 4.14, 4.15, 6.4).
//!
//! An [`Account`] is what lasts as long as a sandbox: its rules, its counters, and which names
//! the addresses have that it knows. An [`Uplink`] is its connection for one life.

mod account;
mod address;
pub(crate) mod dns;
mod hello;
mod meter;
mod packet;
mod pins;
mod request;
mod requests;
mod rules;
mod tcp;
mod udp;
mod uplink;

pub(crate) use account::Account;
pub(crate) use dns::{Names, Zone};
pub(crate) use meter::{Meter, QUOTA_BYTES, Traffic, UNMETERED};
pub(crate) use packet::datagram;
pub(crate) use rules::Rules;
pub(crate) use uplink::{Outside, Uplink};
