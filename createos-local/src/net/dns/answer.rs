//! One question, one answer.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

use super::names::{Found, Names, address};
use crate::net::rules::host_name;
use crate::net::uplink::Shared;

/// What carries a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Transport {
    Datagram,
    Stream,
}

/// The most that a datagram holds for who does not say more, and for who does.
const SHORT: u16 = 512;
const LONG: u16 = 4096;
/// The most that one holds that goes through a tunnel in one piece.
pub(crate) const FITS_TUNNEL: u16 = 1232;

/// Who asks for names.
pub(crate) trait Asker: Sync {
    fn names(&self) -> &Names;

    /// The addresses that a name of the engine's own has for it: none where there is no such
    /// name, and nothing where it is asked for elsewhere.
    fn own(&self, name: &str) -> Option<Option<Vec<IpAddr>>>;

    /// A host has this address, for a while.
    fn learn(&self, host: &str, ip: IpAddr, ttl: Duration);
}

impl Asker for Shared {
    fn names(&self) -> &Names {
        &self.outside.names
    }

    fn own(&self, name: &str) -> Option<Option<Vec<IpAddr>>> {
        self.names().in_zones(&self.id, name)
    }

    fn learn(&self, host: &str, ip: IpAddr, ttl: Duration) {
        self.account.learn(host, ip, ttl);
    }
}
/// How long a name of the engine's own may be kept.
const OWN_TTL: u32 = 5;

/// The answer to a message of a sandbox; nothing for what is not worth one.
pub(in crate::net) async fn answer(
    shared: &Shared,
    bytes: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let meter = &shared.account.meter;
    if meter.is_capped() {
        return None;
    }
    meter.count_sent(bytes.len());
    let most = (transport == Transport::Datagram).then_some(LONG);
    let message = reply(shared, bytes, most).await?;
    meter.count_received(message.len());
    Some(message)
}

/// The answer to a message, which is to be no longer than this.
pub(crate) async fn reply(asker: &impl Asker, bytes: &[u8], most: Option<u16>) -> Option<Vec<u8>> {
    let Ok(asked) = Message::from_vec(bytes) else {
        let id = bytes.first_chunk::<2>().map(|id| u16::from_be_bytes(*id))?;
        // Two that answer each other's mistakes would never end.
        let is_question = bytes.get(2).is_some_and(|flags| flags & 0x80 == 0);
        let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
        return is_question.then(|| error.to_vec().ok()).flatten();
    };
    if asked.message_type() != MessageType::Query {
        return None;
    }
    let mut reply = Message::new();
    reply
        .set_id(asked.id())
        .set_message_type(MessageType::Response)
        .set_op_code(asked.op_code())
        .set_recursion_desired(asked.recursion_desired())
        .set_recursion_available(true)
        .add_queries(asked.queries().iter().cloned());
    let code = match asked.queries() {
        _ if asked.op_code() != OpCode::Query => ResponseCode::NotImp,
        [query] if query.query_class() == DNSClass::IN => {
            let (code, records) = look_up(asker, query).await;
            reply.insert_answers(records);
            code
        }
        _ => ResponseCode::Refused,
    };
    reply.set_response_code(code);
    let long = most.unwrap_or(LONG);
    let mut room = SHORT;
    if let Some(edns) = asked.extensions() {
        room = edns.max_payload().clamp(SHORT, long);
        let mut own = Edns::new();
        own.set_max_payload(long).set_version(0);
        reply.set_edns(own);
    }
    let whole = reply.to_vec().ok()?;
    if most.is_none() || whole.len() <= usize::from(room) {
        return Some(whole);
    }
    // Who wants the rest asks again by TCP.
    reply.take_answers();
    reply.set_truncated(true).to_vec().ok()
}

async fn look_up(asker: &impl Asker, query: &Query) -> (ResponseCode, Vec<Record>) {
    let kind = query.query_type();
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    if let Some(own) = asker.own(name) {
        let Some(addresses) = own else { return (ResponseCode::NXDomain, Vec::new()) };
        let records = addresses.into_iter().filter_map(|ip| own_record(query, ip));
        return (ResponseCode::NoError, records.collect());
    }
    match kind {
        // There is no way to IPv6 addresses; and who learns how to hide the name of a host
        // from its rules would be refused.
        RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB => {
            return (ResponseCode::NoError, Vec::new());
        }
        // Zone transfers and the like are between servers.
        RecordType::AXFR | RecordType::IXFR | RecordType::ANY => {
            return (ResponseCode::NotImp, Vec::new());
        }
        _ => {}
    }
    let mut name_asked = query.name().clone();
    name_asked.set_fqdn(true);
    match asker.names().find(&name_asked, kind).await {
        Found::Records(records) => {
            if let Some(host) = host_name(name) {
                for record in &records {
                    let Some(ip) = address(record) else { continue };
                    let ttl = Duration::from_secs(u64::from(record.ttl()));
                    asker.learn(&host, ip, ttl);
                }
            }
            (ResponseCode::NoError, records)
        }
        Found::Nothing(code) => (code, Vec::new()),
        Found::Failed => (ResponseCode::ServFail, Vec::new()),
    }
}

fn own_record(query: &Query, ip: IpAddr) -> Option<Record> {
    let data = match (query.query_type(), ip) {
        (RecordType::A, IpAddr::V4(ip)) => RData::A(A(ip)),
        (RecordType::AAAA, IpAddr::V6(ip)) => RData::AAAA(AAAA(ip)),
        _ => return None,
    };
    Some(Record::from_rdata(query.name().clone(), OWN_TTL, data))
}
