//! The name of a client certificate, as Kafka writes it: RFC 2253, the last part first.
//!
//! Pure. The bytes come from a certificate that was verified, and are not trusted to be well formed
//! all the same.

/// The parts that have a name; others are written with the digits of their identifier.
const KEYWORDS: &[(&[u8], &str)] = &[
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01],
        "UID",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19],
        "DC",
    ),
];

const IDENTIFIER: u8 = 0x06;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const TELETEX: u8 = 0x14;
const IA5: u8 = 0x16;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Writes a subject, which is the content of its outer sequence in DER; `None` where it is no name.
pub(crate) fn written(subject: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut rest = subject;
    while !rest.is_empty() {
        let (set, after) = element(rest, SET)?;
        parts.push(relative(set)?);
        rest = after;
    }
    parts.reverse();
    Some(parts.join(","))
}

/// One part of the name; several attributes in it are joined by `+`.
fn relative(mut set: &[u8]) -> Option<String> {
    let mut attributes = Vec::new();
    while !set.is_empty() {
        let (attribute, after) = element(set, SEQUENCE)?;
        let (identifier, value) = element(attribute, IDENTIFIER)?;
        attributes.push(one(identifier, value)?);
        set = after;
    }
    Some(attributes.join("+"))
}

fn one(identifier: &[u8], value: &[u8]) -> Option<String> {
    let keyword = KEYWORDS.iter().find(|(known, _)| *known == identifier);
    let (tag, content, _) = any(value)?;
    let text = match tag {
        UTF8 | PRINTABLE | TELETEX | IA5 => std::str::from_utf8(content).ok(),
        _ => None,
    };
    Some(match (keyword, text) {
        (Some((_, keyword)), Some(text)) => format!("{keyword}={}", escaped(text)),
        (Some((_, keyword)), None) => format!("{keyword}=#{}", hexadecimal(value)),
        (None, _) => format!("{}=#{}", dotted(identifier)?, hexadecimal(value)),
    })
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (place, character) in text.chars().enumerate() {
        let edge = place == 0 && character == '#' || (place == 0 || place == last) && character == ' ';
        if edge || matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn dotted(identifier: &[u8]) -> Option<String> {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in identifier {
        number = number.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    // The first number holds two: 40 times the first, which is 0 to 2, plus the second.
    let (first, others) = numbers.split_first()?;
    let root = (first / 40).min(2);
    let mut dotted = format!("{root}.{}", first - root * 40);
    for number in others {
        dotted.push_str(&format!(".{number}"));
    }
    Some(dotted)
}

/// The content of an element with this tag, and what follows it.
fn element(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = any(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag, content and what follows. Lengths of up to two bytes: a handshake has no room for more.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (length, rest) = match bytes.get(1..)? {
        [length @ 0..=0x7f, rest @ ..] => (usize::from(*length), rest),
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*bytes.first()?, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match u8::try_from(content.len()) {
            Ok(short) if short < 0x80 => bytes.push(short),
            Ok(medium) => bytes.extend([0x81, medium]),
            Err(_) => {
                bytes.push(0x82);
                bytes.extend((content.len() as u16).to_be_bytes());
            }
        }
        bytes.extend(content);
        bytes
    }

    fn attribute(identifier: &[u8], tag: u8, value: &str) -> Vec<u8> {
        let content = [tagged(IDENTIFIER, identifier), tagged(tag, value.as_bytes())].concat();
        tagged(SEQUENCE, &content)
    }

    const CN: &[u8] = &[0x55, 0x04, 0x03];
    const O: &[u8] = &[0x55, 0x04, 0x0a];
    /// 1.2.840.113549.1.9.1, the address for mail.
    const MAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];

    #[test]
    fn the_last_part_comes_first_and_signs_are_escaped() {
        let organisation = tagged(SET, &attribute(O, PRINTABLE, "Example, Inc."));
        let name = tagged(SET, &attribute(CN, UTF8, "fraud worker"));
        let subject = [organisation, name].concat();
        assert_eq!(
            written(&subject).as_deref(),
            Some("CN=fraud worker,O=Example\\, Inc.")
        );
    }

    #[test]
    fn several_attributes_and_unknown_ones_are_written_out() {
        let both = [attribute(CN, UTF8, " a "), attribute(MAIL, IA5, "a@b")].concat();
        let subject = tagged(SET, &both);
        assert_eq!(
            written(&subject).as_deref(),
            Some("CN=\\ a\\ +1.2.840.113549.1.9.1=#1603614062")
        );
    }

    #[test]
    fn long_values_are_read_and_cut_ones_are_not() {
        let long = "x".repeat(300);
        let subject = tagged(SET, &attribute(CN, UTF8, &long));
        assert_eq!(written(&subject), Some(format!("CN={long}")));
        for length in 1..subject.len() {
            assert_eq!(written(&subject[..length]), None, "{length}");
        }
        assert_eq!(written(&[]).as_deref(), Some(""));
    }
}
