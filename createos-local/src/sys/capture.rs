//! The way out of a sandbox's network namespace: what leaves it for an address that is none
//! of its own goes back in, to sockets that the engine holds.
//!
//! A routing table of its own sends such packets to loopback, and a packet filter there
//! hands them to the sockets on [`CAPTURE_PORT`]. There is no other way out: whoever takes
//! the rules away has none.

use super::netlink::{ACK, APPEND, Body, CREATE, EXCLUSIVE, Family, Messages, REPLACE, REQUEST};
use std::io;
use std::net::Ipv4Addr;

/// Where the engine's sockets for TCP and for UDP are.
pub(crate) const CAPTURE_PORT: u16 = 1028;

const AF_INET: u8 = 2;
const LOOPBACK: u32 = 1;
/// The routing table that leads back in. It is asked after the main one, of which the way to
/// everything counts as none.
const MAIN: u8 = 254;
const TABLE: u8 = 100;
const PRIORITY: u32 = 32_700;
/// The packet filter's table and chain.
const NAME: &str = "createos";
const CHAIN: &str = "out";

/// Leads what is for elsewhere back in. What is there already is made anew.
pub(crate) fn open_capture(own: Ipv4Addr) -> io::Result<()> {
    for table in [MAIN, TABLE] {
        route(CREATE | REPLACE, RTM_NEWROUTE, table, Some(own)).send(Family::Route)?;
    }
    for table in [MAIN, TABLE] {
        match rule(CREATE | EXCLUSIVE, RTM_NEWRULE, table).send(Family::Route) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => outcome?,
        }
    }
    let filter = |messages| batch(filter(messages)).send(Family::Netfilter);
    match filter(new_table(Messages::default(), EXCLUSIVE)) {
        // Taken away only where it is there: the kernel lets nobody go on before it has.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            filter(new_table(remove_table(Messages::default()), 0))
        }
        outcome => outcome,
    }
}

/// Undoes that, as far as it is there, but for one route that leads nowhere: sockets that know
/// somebody outside cannot be saved and brought back without any.
pub(crate) fn close_capture() {
    let _ = batch(remove_table(Messages::default())).send(Family::Netfilter);
    for table in [MAIN, TABLE] {
        let _ = rule(0, RTM_DELRULE, table).send(Family::Route);
    }
    let _ = route(0, RTM_DELROUTE, TABLE, None).send(Family::Route);
}

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;

/// `local default dev lo src OWN table TABLE`, or `default dev lo src OWN` in the main one.
fn route(flags: u16, kind: u16, table: u8, own: Option<Ipv4Addr>) -> Messages {
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_HOST: u8 = 254;
    const SCOPE_LINK: u8 = 253;
    const TYPE_UNICAST: u8 = 1;
    const TYPE_LOCAL: u8 = 2;
    const RTA_OIF: u16 = 4;
    const RTA_PREFSRC: u16 = 7;
    let (scope, leads) =
        if table == MAIN { (SCOPE_LINK, TYPE_UNICAST) } else { (SCOPE_HOST, TYPE_LOCAL) };
    Messages::default().add(kind, REQUEST | ACK | flags, |body| {
        body.bytes(&[AF_INET, 0, 0, 0, table, PROTOCOL_STATIC, scope, leads]);
        body.bytes(&[0; 4]);
        body.attribute(RTA_OIF, &LOOPBACK.to_ne_bytes());
        if let Some(own) = own {
            body.attribute(RTA_PREFSRC, &own.octets());
        }
    })
}

/// `lookup main suppress_prefixlength 0`, and then `lookup TABLE`.
fn rule(flags: u16, kind: u16, table: u8) -> Messages {
    const ACTION_LOOKUP: u8 = 1;
    const FRA_PRIORITY: u16 = 6;
    const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
    let priority = if table == MAIN { PRIORITY } else { PRIORITY + 1 };
    Messages::default().add(kind, REQUEST | ACK | flags, |body| {
        body.bytes(&[AF_INET, 0, 0, 0, table, 0, 0, ACTION_LOOKUP]);
        body.bytes(&[0; 4]);
        body.attribute(FRA_PRIORITY, &priority.to_ne_bytes());
        if table == MAIN {
            body.attribute(FRA_SUPPRESS_PREFIXLEN, &0u32.to_ne_bytes());
        }
    })
}

const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = NEW_TABLE | 2;
const NEW_CHAIN: u16 = NEW_TABLE | 3;
const NEW_RULE: u16 = NEW_TABLE | 6;

/// Whatever one message of it is refused, nothing of it is done.
fn batch(inside: Messages) -> Messages {
    const BEGIN: u16 = 0x10;
    const END: u16 = 0x11;
    let mark = |body: &mut Body| body.bytes(&[0, 0, 0, SUBSYSTEM as u8]);
    let begun = Messages::default().add(BEGIN, REQUEST, mark);
    begun.join(inside).add(END, REQUEST, mark)
}

/// Also where there is none: then it is made for that.
fn remove_table(messages: Messages) -> Messages {
    new_table(messages, 0).add(DELETE_TABLE, REQUEST, table)
}

fn new_table(messages: Messages, flags: u16) -> Messages {
    messages.add(NEW_TABLE, REQUEST | CREATE | flags, table)
}

fn table(body: &mut Body) {
    body.bytes(&[AF_INET, 0, 0, 0]);
    body.text(1, NAME);
}

/// Adds what is in the table.
fn filter(messages: Messages) -> Messages {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let messages = messages.add(NEW_CHAIN, REQUEST | CREATE, |body| {
        const PREROUTING: u32 = 0;
        const BEFORE_NAT: i32 = -150;
        table(body);
        body.text(3, CHAIN);
        body.nest(4, |hook| {
            hook.number(1, PREROUTING);
            hook.number(2, BEFORE_NAT.cast_unsigned());
        });
        body.text(7, "filter");
    });
    let messages = add_rule(messages, 0, |rule| {
        // What comes by another interface is from a private network.
        load_interface(rule);
        compare(rule, DIFFERENT, &LOOPBACK.to_ne_bytes());
        decide(rule, RETURN);
    });
    let messages = add_rule(messages, 0, |rule| {
        const RTN_LOCAL: u32 = 2;
        load_address_type(rule);
        compare(rule, EQUAL, &RTN_LOCAL.to_ne_bytes());
        decide(rule, RETURN);
    });
    let capture = |messages, protocol: u8| {
        add_rule(messages, 0, |rule| {
            load_protocol(rule);
            compare(rule, EQUAL, &[protocol]);
            hand_over(rule);
            decide(rule, ACCEPT);
        })
    };
    let messages = capture(capture(messages, TCP), UDP);
    // Anything else, a ping for example, must not be answered in the place of who is meant.
    add_rule(messages, ACK, |rule| decide(rule, DROP))
}

fn add_rule(messages: Messages, flags: u16, expressions: impl FnOnce(&mut Body)) -> Messages {
    messages.add(NEW_RULE, REQUEST | CREATE | APPEND | flags, |body| {
        table(body);
        body.text(2, CHAIN);
        body.nest(4, expressions);
    })
}

const REGISTER: u32 = 1;
const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const RETURN: i32 = -5;

fn expression(rule: &mut Body, name: &str, data: impl FnOnce(&mut Body)) {
    rule.nest(1, |element| {
        element.text(1, name);
        element.nest(2, data);
    });
}

fn meta(rule: &mut Body, key: u32) {
    expression(rule, "meta", |data| {
        data.number(2, key);
        data.number(1, REGISTER);
    });
}

fn load_interface(rule: &mut Body) {
    meta(rule, 4);
}

fn load_protocol(rule: &mut Body) {
    meta(rule, 16);
}

/// Of the destination, by the table of the sandbox's own addresses.
fn load_address_type(rule: &mut Body) {
    const RESULT_TYPE: u32 = 3;
    const OF_DESTINATION: u32 = 2;
    expression(rule, "fib", |data| {
        data.number(1, REGISTER);
        data.number(2, RESULT_TYPE);
        data.number(3, OF_DESTINATION);
    });
}

fn compare(rule: &mut Body, how: u32, value: &[u8]) {
    expression(rule, "cmp", |data| {
        data.number(1, REGISTER);
        data.number(2, how);
        data.nest(3, |data| data.attribute(1, value));
    });
}

fn decide(rule: &mut Body, verdict: i32) {
    expression(rule, "immediate", |data| {
        data.number(1, 0);
        data.nest(2, |data| data.nest(2, |data| data.number(1, verdict.cast_unsigned())));
    });
}

/// Gives the packet to the socket on the port, if one is there.
fn hand_over(rule: &mut Body) {
    expression(rule, "immediate", |data| {
        data.number(1, REGISTER);
        data.nest(2, |data| data.attribute(1, &CAPTURE_PORT.to_be_bytes()));
    });
    expression(rule, "tproxy", |data| {
        data.number(1, u32::from(AF_INET));
        data.number(3, REGISTER);
    });
}
