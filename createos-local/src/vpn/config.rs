//! What a device needs to know, in the words of `wg-quick(8)`.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{KEY_BYTES, NewSession, RESOLVER};
use crate::network_protocol::LINE_MTU;

/// How often a device shows that it is there, in seconds: so members reach it, whatever keeps
/// track of connections between the two.
const KEEPALIVE: u16 = 25;

/// The configuration of a session, without the private key.
pub(super) fn client_config(
    session: &NewSession,
    public: &[u8; KEY_BYTES],
    endpoint: SocketAddr,
) -> String {
    let NewSession { ip, reaches, .. } = session;
    let key = STANDARD.encode(public);
    let networks = reaches.iter().map(|reach| {
        let (first, prefix) = (reach.subnet.first(), reach.subnet.prefix());
        format!(", {first}/{prefix}")
    });
    let networks: String = networks.collect();
    format!(
        "[Interface]\n\
         Address = {ip}/32\n\
         MTU = {LINE_MTU}\n\
         # Names of sandboxes are answered at {RESOLVER}. Where wg-quick finds resolvconf:\n\
         # DNS = {RESOLVER}, fc.local\n\
         \n\
         [Peer]\n\
         PublicKey = {key}\n\
         Endpoint = {endpoint}\n\
         AllowedIPs = {RESOLVER}/32{networks}\n\
         PersistentKeepalive = {KEEPALIVE}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Reach;
    use super::*;
    use crate::network_protocol::Subnet;

    #[test]
    fn a_configuration_says_where_and_what() {
        let reach = |third| Reach {
            network: format!("net-{third}"),
            subnet: Subnet::new([10, 64, third, 0], 22),
        };
        let session = NewSession {
            session: "ses-1".parse().unwrap(),
            device: "dev-1".parse().unwrap(),
            ip: [100, 64, 0, 2].into(),
            key: [1; 32],
            reaches: vec![reach(0), reach(4)],
            life: Duration::ZERO,
        };
        let config = client_config(&session, &[0; 32], "[::1]:4000".parse().unwrap());
        for line in [
            "Address = 100.64.0.2/32",
            "PublicKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "Endpoint = [::1]:4000",
            "AllowedIPs = 100.64.0.1/32, 10.64.0.0/22, 10.64.4.0/22",
        ] {
            assert!(config.lines().any(|has| has == line), "{line}: {config}");
        }
        assert!(!config.contains("PrivateKey"));
    }
}
