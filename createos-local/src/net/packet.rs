//! UDP datagrams as whole packets: an answer must seem to come from where the question went.

use std::net::SocketAddrV4;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// The longest that fits a packet.
pub(super) const LONGEST: usize = 65_535 - IP_HEADER - UDP_HEADER;

/// The packet, or nothing if the content is too long. Lengths that the kernel fills in, and
/// checksums that may be left out, are 0.
pub(crate) fn datagram(from: SocketAddrV4, to: SocketAddrV4, content: &[u8]) -> Option<Vec<u8>> {
    const VERSION_AND_LENGTH: u8 = 0x45;
    const HOPS: u8 = 64;
    const UDP: u8 = 17;
    if content.len() > LONGEST {
        return None;
    }
    let length = u16::try_from(UDP_HEADER + content.len()).ok()?;
    let total = length + IP_HEADER as u16;
    let mut packet = Vec::with_capacity(usize::from(total));
    packet.extend_from_slice(&[VERSION_AND_LENGTH, 0]);
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, HOPS, UDP, 0, 0]);
    packet.extend_from_slice(&from.ip().octets());
    packet.extend_from_slice(&to.ip().octets());
    packet.extend_from_slice(&from.port().to_be_bytes());
    packet.extend_from_slice(&to.port().to_be_bytes());
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(content);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_the_kernel_reads_them() {
        let (from, to) = ("198.51.100.2:53".parse().unwrap(), "10.0.0.2:40000".parse().unwrap());
        let packet = datagram(from, to, b"hello").unwrap();
        assert_eq!(packet.len(), 33);
        assert_eq!(packet[..4], [0x45, 0, 0, 33]);
        assert_eq!(packet[12..20], [198, 51, 100, 2, 10, 0, 0, 2]);
        assert_eq!(packet[20..28], [0, 53, 0x9c, 0x40, 0, 13, 0, 0]);
        assert_eq!(&packet[28..], b"hello");
        assert_eq!(datagram(from, to, &vec![0; LONGEST]).unwrap().len(), 65_535);
        assert!(datagram(from, to, &vec![0; LONGEST + 1]).is_none());
    }
}
