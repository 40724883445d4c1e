//! When two JSON objects say the same.
//!
//! The canonical text of a value has no white space, its fields in the order of their names, its strings
//! unescaped as far as JSON allows, and its numbers as exact decimals: `1`, `1.0` and `10e-1` are the same
//! number, and 9007199254740993 is not 9007199254740992. No float is involved. Of a name that occurs twice in
//! an object the last one counts. Two values are equal when their canonical texts are.
//!
//! An exponent of more than 18 digits is left as it is written: such numbers are the same only where they
//! are spelled the same.
//!
//! Pure. Depth is bounded by what the scanner of `domain` takes.

use std::borrow::Cow;

use domain::Rejection;
use domain::json::{Elements, Fields, Kind, Value, write_integer, write_string};

/// Exponents of more digits are left alone, so that sums with them can not overflow.
const MOST_EXPONENT_DIGITS: usize = 18;

/// Appends the canonical text of an object without one of its fields.
///
/// # Errors
/// Why the text is no JSON object.
pub(super) fn write_object(out: &mut Vec<u8>, text: &str, left_out: &str) -> Result<(), Rejection> {
    let mut fields = fields_of(text)?;
    fields.retain(|(name, _)| name != left_out);
    write_fields(out, &fields)
}

fn fields_of(text: &str) -> Result<Vec<(Cow<'_, str>, Value<'_>)>, Rejection> {
    let mut walk = Fields::of(text)?;
    let mut fields: Vec<(Cow<'_, str>, Value<'_>)> = Vec::new();
    while let Some(field) = walk.next_field()? {
        fields.push((field.name, field.value));
    }
    // Stable: of equal names the last one stays the last one.
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
    Ok(fields)
}

fn write_fields(out: &mut Vec<u8>, fields: &[(Cow<'_, str>, Value<'_>)]) -> Result<(), Rejection> {
    out.push(b'{');
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        write_value(out, value)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_value(out: &mut Vec<u8>, value: &Value<'_>) -> Result<(), Rejection> {
    match value.kind {
        Kind::Object => return write_fields(out, &fields_of(value.raw)?),
        Kind::Array => {
            out.push(b'[');
            let mut first = true;
            let mut elements = Elements::of(value.raw);
            while let Some(element) = elements.as_mut().map_or(Ok(None), Elements::next_element)? {
                if !first {
                    out.push(b',');
                }
                first = false;
                write_value(out, &element)?;
            }
            out.push(b']');
        }
        Kind::String { .. } => write_string(out, &value.text().unwrap_or_default()),
        Kind::Number => write_number(out, value.raw),
        Kind::Boolean | Kind::Null => out.extend_from_slice(value.raw.as_bytes()),
    }
    Ok(())
}

/// The digits without zeros at either end, and the power of ten that they are multiplied by.
fn write_number(out: &mut Vec<u8>, raw: &str) {
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let (negative, mantissa) = mantissa
        .strip_prefix('-')
        .map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        out.push(b'0');
        return;
    }
    let (below, exponent) = exponent
        .strip_prefix('-')
        .map_or((false, exponent.trim_start_matches('+')), |rest| (true, rest));
    let exponent = exponent.trim_start_matches('0');
    if exponent.len() > MOST_EXPONENT_DIGITS {
        out.extend_from_slice(raw.as_bytes());
        return;
    }
    let magnitude: i64 = exponent.parse().unwrap_or(0);
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let power = if below { -magnitude } else { magnitude } - length(fraction) + length(digits) - length(kept);
    if negative {
        out.push(b'-');
    }
    out.extend_from_slice(kept.as_bytes());
    if power != 0 {
        out.push(b'e');
        write_integer(out, power);
    }
}

/// Whether the text is one JSON value, and its canonical text.
#[cfg(test)]
fn canonical(text: &str) -> Option<String> {
    let mut out = Vec::new();
    write_value(&mut out, &domain::json::parse(text).ok()?).ok()?;
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_equal_when_their_values_are() {
        for (number, same) in [
            ("1.0", "1"),
            ("1e2", "100"),
            ("1E+2", "100.00"),
            ("-0", "0"),
            ("-0.00e7", "0"),
            ("0.10", "1e-1"),
            ("10e-1", "1"),
            ("249.99", "24999e-2"),
            ("123000", "1.23e5"),
            ("1e0000000000000000000002", "100"),
            (
                "123456789012345678901234567890123456789.5",
                "1234567890123456789012345678901234567895e-1",
            ),
        ] {
            assert_eq!(canonical(number), canonical(same), "{number} is {same}");
        }
        for (number, other) in [
            ("1", "-1"),
            ("1", "10"),
            ("1", "\"1\""),
            ("0.1", "0.10000000000000000001"),
            // The same as floats of 64 bits.
            ("9007199254740993", "9007199254740992"),
            ("18446744073709551616", "18446744073709551617"),
            ("1e400", "1e401"),
            ("0.30000000000000004", "0.3"),
        ] {
            assert_ne!(canonical(number), canonical(other), "{number} is not {other}");
        }
    }

    #[test]
    fn objects_are_equal_whatever_the_order_and_spelling_of_their_fields() {
        for (text, same) in [
            (r#"{"a":1,"b":2}"#, r#" { "b" : 2.0 , "a" : 1 } "#),
            (
                r#"{"a":{"y":[1,{"q":1e1,"p":null}]}}"#,
                r#"{"a":{"y":[1.0,{"p":null,"q":10}]}}"#,
            ),
            (r#"{"\u0061":"\u00e4\/"}"#, "{\"a\":\"ä/\"}"),
            (r#""\ud83d\ude00""#, "\"😀\""),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1,"b":0,"a":2,"a":3}"#, r#"{"a":3,"b":0}"#),
            ("[]", " [ ] "),
        ] {
            assert_eq!(canonical(text), canonical(same), "{text}");
            assert!(canonical(text).is_some(), "{text}");
        }
        for (text, other) in [
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
            (r#"{"a":"1"}"#, r#"{"a":1}"#),
            (r#"{"a":""}"#, r#"{"a":null}"#),
            (r#"{"a":"b\",\"c"}"#, r#"{"a":"b","c":""}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":1}"#),
            (r#"["a,b"]"#, r#"["a","b"]"#),
        ] {
            assert_ne!(canonical(text), canonical(other), "{text}");
        }
    }

    #[test]
    fn our_own_field_is_left_out_at_the_top_alone() {
        let without = |text: &str| {
            let mut out = Vec::new();
            write_object(&mut out, text, "_orderflow").expect("object");
            String::from_utf8(out).expect("text")
        };
        assert_eq!(without(r#"{"_orderflow":{"x":1},"a":1}"#), r#"{"a":1}"#);
        assert_eq!(
            without(r#"{"b":{"_orderflow":1},"a":1}"#),
            r#"{"a":1,"b":{"_orderflow":1}}"#
        );
        assert!(write_object(&mut Vec::new(), "[1]", "_orderflow").is_err());
        assert!(write_object(&mut Vec::new(), r#"{"a":}"#, "_orderflow").is_err());
    }

    proptest! {
        /// The exact decimals of another implementation judge.
        #[test]
        fn numbers_are_equal_exactly_when_another_implementation_says_so(
            one in "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,4})?([eE][+-]?[0-9])?",
            other in "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,4})?([eE][+-]?[0-9])?",
            shift in 0_i64..6,
        ) {
            let value = |text: &str| text.parse::<bigdecimal::BigDecimal>().expect("a number");
            prop_assert_eq!(canonical(&one) == canonical(&other), value(&one) == value(&other));
            let respelled = (value(&one)).with_scale(13 + shift).to_plain_string();
            prop_assert_eq!(canonical(&one), canonical(&respelled));
        }
    }
}
