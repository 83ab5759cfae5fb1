//! IPv4 packets of devices, as far as they must be read and written.

use std::net::Ipv4Addr;

const SHORTEST: usize = 20;
pub(super) const UDP: u8 = 17;
const ICMP: u8 = 1;

/// What was read of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    /// Where the content begins.
    pub(super) content: usize,
    /// Whether it is a part of a packet.
    pub(super) is_part: bool,
    /// Whether it is not the first part.
    is_rest: bool,
}

impl Header {
    /// Nothing for what is no whole IPv4 packet.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let head: &[u8; SHORTEST] = packet.first_chunk()?;
        let content = usize::from(head[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if head[0] >> 4 != 4 || content < SHORTEST || total < content || total > packet.len() {
            return None;
        }
        let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
        let (more, rest) = (head[6] & 0x20 != 0, u16::from_be_bytes([head[6] & 0x1f, head[7]]));
        Some(Self {
            source: address(12),
            destination: address(16),
            protocol: head[9],
            content,
            is_part: more || rest != 0,
            is_rest: rest != 0,
        })
    }
}

/// The sum that the internet's checksums are made of.
fn checksum(parts: &[u8]) -> u16 {
    let words =
        parts.chunks(2).map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Fills in the checksum of a packet's header, where one must not be missing.
pub(super) fn seal(packet: &mut [u8]) {
    if packet.len() >= SHORTEST {
        packet[10..12].fill(0);
        let sum = checksum(&packet[..SHORTEST]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Tells whoever sent a packet that its receiver is not there; nothing where that is not done.
pub(super) fn unreachable(packet: &[u8]) -> Option<Vec<u8>> {
    const HOPS: u8 = 64;
    const UNREACHABLE: u8 = 3;
    const HOST: u8 = 1;
    const HEAD: usize = 8;
    /// Of these ICMP messages, answers do not make answers.
    const ASKS: u8 = 8;
    let header = Header::parse(packet)?;
    let is_answer = header.protocol == ICMP && packet.get(header.content) != Some(&ASKS);
    if header.is_rest || is_answer || header.destination.is_broadcast() {
        return None;
    }
    let quoted = &packet[..packet.len().min(header.content + 8)];
    let total = u16::try_from(SHORTEST + HEAD + quoted.len()).ok()?;
    let mut answer = vec![0x45, 0];
    answer.extend_from_slice(&total.to_be_bytes());
    answer.extend_from_slice(&[0, 0, 0, 0, HOPS, ICMP, 0, 0]);
    answer.extend_from_slice(&header.destination.octets());
    answer.extend_from_slice(&header.source.octets());
    answer.extend_from_slice(&[UNREACHABLE, HOST, 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(quoted);
    let sum = checksum(&answer[SHORTEST..]);
    answer[SHORTEST + 2..SHORTEST + 4].copy_from_slice(&sum.to_be_bytes());
    seal(&mut answer);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `protocol`, from 10.64.0.2 to 100.64.0.9.
    fn packet(protocol: u8, content: &[u8]) -> Vec<u8> {
        let total = (SHORTEST + content.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 64, 0, 2, 100, 64, 0, 9]);
        packet.extend(content);
        packet
    }

    #[test]
    fn whole_packets_are_read_and_others_are_not() {
        let whole = packet(UDP, b"content");
        let header = Header::parse(&whole).unwrap();
        assert_eq!(header.source, Ipv4Addr::new(10, 64, 0, 2));
        assert_eq!(header.destination, Ipv4Addr::new(100, 64, 0, 9));
        assert_eq!((header.protocol, header.content, header.is_part), (UDP, 20, false));
        for length in 0..whole.len() {
            assert_eq!(Header::parse(&whole[..length]), None, "cut at {length}");
        }
        for (at, byte) in [(0, 0x65), (0, 0x44), (0, 0x4f), (3, 19)] {
            let mut broken = whole.clone();
            broken[at] = byte;
            assert_eq!(Header::parse(&broken), None, "{byte:#x} at {at}");
        }
        let mut part = whole;
        part[6] = 0x20;
        assert!(Header::parse(&part).unwrap().is_part);
    }

    #[test]
    fn who_is_not_there_is_told_of_once() {
        let asked = packet(UDP, &[7; 100]);
        let told = unreachable(&asked).unwrap();
        assert_eq!(checksum(&told[..20]), 0);
        assert_eq!(checksum(&told[20..]), 0);
        let header = Header::parse(&told).unwrap();
        assert_eq!(header.destination, Ipv4Addr::new(10, 64, 0, 2));
        assert_eq!(told[20..22], [3, 1]);
        assert_eq!(told[28..], asked[..28]);
        assert_eq!(unreachable(&told), None, "an answer to an answer");
        assert!(unreachable(&packet(ICMP, &[8, 0, 0, 0])).is_some());
        let mut rest = asked;
        rest[7] = 1;
        assert_eq!(unreachable(&rest), None);
        assert_eq!(unreachable(&[]), None);
    }
}
