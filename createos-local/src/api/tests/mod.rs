//! The front over real sockets, with a scripted machine behind it.

mod access_token;
mod computer;
mod create;
mod devices;
mod egress;
mod exec;
mod files;
mod fork;
mod ingress;
mod lifecycle;
mod networks;
mod pause;
mod processes;
mod recovery;
mod rig;
mod routes;
mod s3_disks;
mod self_signal;
mod sessions;
mod settings;
mod templates;
mod terminal;
mod tunnel;
mod usage;
mod wire;
