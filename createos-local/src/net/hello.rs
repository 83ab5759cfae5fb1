//! The name that a TLS client asks for, from its first message.

use super::rules::host_name;

/// The most bytes that a first message may take.
pub(crate) const LONGEST: usize = 32 << 10;

/// What the first bytes of a connection say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// It is not complete yet.
    Unfinished,
    /// It is no TLS, or not as TLS must be.
    Malformed,
    /// It asks for no name, or hides the one it asks for.
    Nameless,
    Name(String),
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
/// Encrypted client hello, and the name encryption before it. Browsers send a placeholder
/// that cannot be told from the real thing.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// Whether these bytes begin as TLS does.
pub(crate) fn looks_like_tls(bytes: &[u8]) -> bool {
    bytes.first() == Some(&HANDSHAKE)
}

pub(crate) fn read(bytes: &[u8]) -> Hello {
    match handshake(bytes) {
        Ok(Some(message)) => client_hello(&message).unwrap_or(Hello::Malformed),
        Ok(None) if bytes.len() < LONGEST => Hello::Unfinished,
        _ => Hello::Malformed,
    }
}

struct Malformed;

/// The first handshake message, out of its records.
fn handshake(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut message = Vec::new();
    while let Some((&[kind, major, minor, high, low], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || major != 3 || minor > 4 || !(1..=1 << 14).contains(&length) {
            return Err(Malformed);
        }
        let Some((record, rest)) = rest.split_at_checked(length) else {
            return Ok(None);
        };
        message.extend_from_slice(record);
        bytes = rest;
        if let Some((&[kind, a, b, c], body)) = message.split_first_chunk() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if kind != CLIENT_HELLO || length > LONGEST {
                return Err(Malformed);
            }
            if let Some(body) = body.get(..length) {
                return Ok(Some(body.to_vec()));
            }
        }
    }
    // An impossible record is known by its first byte.
    match bytes.first() {
        Some(kind) if *kind != HANDSHAKE => Err(Malformed),
        _ => Ok(None),
    }
}

/// Takes fields off the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<usize> {
        self.take(1).map(|bytes| usize::from(bytes[0]))
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A field with its length, of two bytes, in front.
    fn field(&mut self) -> Option<Cursor<'a>> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Cursor)
    }
}

/// Nothing where it is malformed.
fn client_hello(body: &[u8]) -> Option<Hello> {
    let mut hello = Cursor(body);
    // Version and random.
    hello.take(2 + 32)?;
    let session = hello.u8().filter(|length| *length <= 32)?;
    hello.take(session)?;
    let ciphers = hello.field()?.0.len();
    let compressions = hello.u8()?;
    hello.take(compressions)?;
    if ciphers == 0 || ciphers % 2 != 0 || compressions == 0 {
        return None;
    }
    if hello.0.is_empty() {
        return Some(Hello::Nameless);
    }
    let mut extensions = hello.field()?;
    let (mut seen, mut name, mut hidden) = (Vec::new(), None, false);
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.u16()?, extensions.field()?);
        if seen.contains(&kind) {
            return None;
        }
        seen.push(kind);
        hidden |= ENCRYPTED.contains(&kind);
        if kind == SERVER_NAME {
            name = Some(server_name(content)?);
        }
    }
    if !hello.0.is_empty() {
        return None;
    }
    Some(match name {
        Some(name) if !hidden => Hello::Name(name),
        _ => Hello::Nameless,
    })
}

fn server_name(mut content: Cursor<'_>) -> Option<String> {
    const HOST: usize = 0;
    let mut list = content.field()?;
    let (kind, name) = (list.u8()?, list.field()?);
    if kind != HOST || !list.0.is_empty() || !content.0.is_empty() {
        return None;
    }
    host_name(std::str::from_utf8(name.0).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn name(name: &[u8]) -> Vec<u8> {
        field(&[&[0], &field(name)[..]].concat())
    }

    fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(field(&[0x13, 0x01]));
        body.extend([1, 0]);
        let one =
            |(kind, content): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &field(content)].concat();
        body.extend(field(&extensions.iter().flat_map(one).collect::<Vec<u8>>()));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO], &length[1..], &body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &field(part)].concat()).collect()
    }

    #[test]
    fn names_are_found_however_the_message_is_cut() {
        let message = hello(&[(43, vec![2, 3, 4]), (0, name(b"API.Example.org"))]);
        for size in [1, 7, 100, 16_384] {
            let bytes = records(&message, size);
            assert_eq!(read(&bytes), Hello::Name("api.example.org".into()), "{size}");
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Hello::Unfinished, "{size} {cut}");
            }
        }
        let with = |extensions: &[(u16, Vec<u8>)]| read(&records(&hello(extensions), 16_384));
        assert_eq!(with(&[]), Hello::Nameless);
        assert_eq!(with(&[(0, name(b"a.test")), (0xfe0d, vec![1])]), Hello::Nameless);
        assert_eq!(with(&[(0xffce, vec![]), (0, name(b"a.test"))]), Hello::Nameless);
    }

    #[test]
    fn what_is_not_as_it_must_be_has_no_name() {
        let with = |extensions: &[(u16, Vec<u8>)]| read(&records(&hello(extensions), 16_384));
        for bad in [
            vec![(0, name(b"a.test")), (0, name(b"b.test"))],
            vec![(0, name(b""))],
            vec![(0, name(b"1.2.3.4"))],
            vec![(0, name(b"a.test\0.b.test"))],
            vec![(0, name("ä.test".as_bytes()))],
            vec![(0, vec![])],
            vec![(0, [name(b"a.test"), vec![0]].concat())],
            vec![(0, field(&[&[1], &field(b"a.test")[..]].concat()))],
        ] {
            assert_eq!(with(&bad), Hello::Malformed, "{bad:?}");
        }
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Hello::Malformed);
        assert_eq!(read(&[22, 3, 1, 0, 0]), Hello::Malformed);
        assert_eq!(read(&[22, 3, 1, 0x40, 1]), Hello::Malformed);
        assert_eq!(read(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Hello::Malformed);
        assert_eq!(read(&vec![22; LONGEST]), Hello::Malformed);
        // No byte, changed, makes it panic or name another host than one of a name's bytes.
        let bytes = records(&hello(&[(0, name(b"a.test")), (16, vec![0, 1, 2])]), 16_384);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff, bytes[at] ^ 1] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = read(&changed);
            }
        }
    }
}
