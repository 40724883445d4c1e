//! Files of orders: what is read, what is refused on which line, and what a bad line costs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::path::Path;

use domain::{Currency, EventTime, Order};
use producer::source::{ColumnMap, Entry, Format, SourceError, open};

const NOW: EventTime = EventTime(1_705_029_300_000);

struct Read {
    orders: Vec<(u64, serde_json::Value)>,
    rejected: Vec<(u64, &'static str, String)>,
    left_out: u64,
    skipped: u64,
}

fn read_as(name: &str, bytes: &[u8], format: Format, map: Option<&str>) -> Result<Read, SourceError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read_path(&path, format, map)
}

fn read_path(path: &Path, format: Format, map: Option<&str>) -> Result<Read, SourceError> {
    let map = map.map(|map| map.parse::<ColumnMap>().unwrap());
    let mut file = open(path, format, map.as_ref(), Currency::USD)?;
    let mut read = Read {
        orders: Vec::new(),
        rejected: Vec::new(),
        left_out: 0,
        skipped: 0,
    };
    while let Some(entry) = file.source.next_entry(NOW)? {
        match entry {
            Entry::Order { line, order } => {
                let decoded = Order::decode(&order.value, Currency::USD).unwrap();
                assert_eq!(decoded.id.text(), order.key);
                assert!(decoded.timestamp.is_some());
                read.orders
                    .push((line, serde_json::from_slice(&order.value).unwrap()));
            }
            Entry::Rejected {
                line,
                rejection,
                counts,
            } => {
                read.left_out += u64::from(counts);
                read.rejected.push((line, rejection.code, rejection.message));
            }
            Entry::Skipped => read.skipped += 1,
        }
    }
    Ok(read)
}

fn read(name: &str, bytes: &[u8]) -> Read {
    read_as(name, bytes, Format::Auto, None).unwrap_or_else(|error| panic!("{error:?}"))
}

fn codes(read: &Read) -> Vec<(u64, &'static str)> {
    read.rejected
        .iter()
        .map(|(line, code, _)| (*line, *code))
        .collect()
}

#[test]
fn a_file_with_all_kinds_of_bad_lines_keeps_its_good_ones() {
    let mut file = Vec::new();
    for line in [
        r#"{"order_id":1,"amount":300.00,"country":"FR"}"#,
        r#"{"order_id":2,"amount":300.01,"country":"FR"}"#,
        r#"{"order_id":3,"amount":300.01,"country":"US"}"#,
        r#"{"order_id":4,"amount":300.01,"country":"CA"}"#,
        r#"{"order_id":5,"amount":"#,
        "hello",
        r#"{"order_id":7,"amount":1,"country":"US","currency":"XYZ"}"#,
        r#"{"order_id":8,"amount":1.005,"country":"US"}"#,
        "",
        r#"{"order_id":1,"amount":999,"country":"NG"}"#,
    ] {
        file.extend(line.as_bytes());
        file.push(b'\n');
    }
    file.extend(std::iter::repeat_n(b'x', 10_000_000));
    file.extend(b"\n\xff\xfe{}\n{\"order_id\":13,\"amount\":1,\"country\":\"US\",\"_orderflow\":{}}\n");
    file.extend(br#"{"order_id":14,"amount":2.50,"country":"CA","gift":true}"#);

    let read = read("orders.ndjson", &file);
    assert_eq!(
        codes(&read),
        [
            (5, "invalid_json"),
            (6, "invalid_json"),
            (7, "unknown_currency"),
            (8, "amount_too_precise"),
            (11, "too_large"),
            (12, "invalid_utf8"),
            (13, "reserved_field"),
        ]
    );
    assert_eq!(
        read.rejected[4].2,
        "the line has 10000000 bytes, must have at most 1048576"
    );
    assert_eq!(read.left_out, 7);
    // The repeated id is an order like any other here: which occurrence counts is decided behind the topic.
    let lines: Vec<_> = read
        .orders
        .iter()
        .map(|(line, order)| (*line, order["order_id"].as_i64().unwrap()))
        .collect();
    assert_eq!(lines, [(1, 1), (2, 2), (3, 3), (4, 4), (10, 1), (14, 14)]);
    assert_eq!(read.orders[5].1["gift"], true);
    assert_eq!(read.orders[5].1["timestamp"], "2024-01-12T03:15:00.000Z");
}

#[test]
fn ten_megabytes_of_garbage_alone_are_one_rejected_line() {
    let garbage = vec![b'{'; 10_000_000];
    let read = read("garbage.ndjson", &garbage);
    assert_eq!((codes(&read), read.orders.len()), (vec![(1, "too_large")], 0));
    // Without a name that says what it is, its layout is not known.
    let unknown = read_as("garbage", &garbage, Format::Auto, None);
    assert!(
        matches!(unknown, Err(SourceError::Layout(message)) if message.contains("the first line is no header"))
    );
}

#[test]
fn a_packed_file_is_read_whatever_its_name() {
    let plain = b"{\"order_id\":1,\"amount\":1,\"country\":\"US\"}\n";
    for name in ["orders.ndjson", "orders.ndjson.zst", "orders", "orders.txt"] {
        assert_eq!(read(name, plain).orders.len(), 1, "{name}");
        assert_eq!(
            read(name, &zstd::encode_all(&plain[..], 3).unwrap()).orders.len(),
            1,
            "{name}"
        );
    }
}

#[test]
fn a_file_that_is_cut_in_the_middle_of_a_frame_is_an_error_after_its_orders() {
    let plain: String = (0..20_000)
        .map(|id| format!("{{\"order_id\":{id},\"amount\":1,\"country\":\"US\"}}\n"))
        .collect();
    let mut packed = zstd::encode_all(plain.as_bytes(), 1).unwrap();
    packed.truncate(packed.len() - 10);
    match read_as("orders.ndjson.zst", &packed, Format::Auto, None) {
        Err(SourceError::Unreadable(message)) => {
            assert!(message.contains("can not be read at line"), "{message}")
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a cut file was read as a whole one"),
    }
}

#[test]
fn csv_columns_are_found_by_their_names_or_by_the_map() {
    let by_name = read(
        "orders.csv",
        b"\xef\xbb\xbfcountry,order_id,amount,currency,note\nFR,A-1,12.50,EUR,\"a, \"\"b\"\"\"\nJP,2,1200,JPY,\nusa,3,1,,\n",
    );
    assert_eq!(by_name.orders[0].1["order_id"], "A-1");
    assert_eq!(by_name.orders[0].1["amount"], 12.5);
    assert_eq!(by_name.orders[1].1["order_id"], 2);
    assert_eq!(codes(&by_name), [(4, "invalid_country")]);

    let map = Some("order_id=Nr,amount=Total,country=Land,timestamp=When,customer_id=Who");
    let csv = b"Nr,Total,Land,When,Who\n1,2.5,DE,2024-01-12 03:15:00,c-1\n2,2.555,DE,,\n3,,DE,,\n4,1,DE,soon,\n5,1,DE\n";
    let mapped = read_as("export.csv", csv, Format::Auto, map).unwrap();
    assert_eq!(mapped.orders.len(), 1);
    assert_eq!(
        mapped.orders[0].1,
        serde_json::json!({"order_id": 1, "amount": 2.5, "currency": "USD", "country": "DE", "customer_id": "c-1",
                           "timestamp": "2024-01-12T03:15:00.000Z"})
    );
    assert_eq!(
        codes(&mapped),
        [
            (3, "amount_too_precise"),
            (4, "invalid_amount"),
            (5, "invalid_timestamp"),
            (6, "invalid_line")
        ]
    );
}

#[test]
fn a_file_of_unknown_layout_is_told_with_the_remedy() {
    let layout = |bytes: &[u8], map: Option<&str>| match read_as("x.csv", bytes, Format::Auto, map) {
        Err(SourceError::Layout(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(read) => panic!("{} orders", read.orders.len()),
    };
    let message = layout(b"Nr,Total,Land\n1,2,DE\n", None);
    assert!(
        message.contains("its header is `Nr,Total,Land`") && message.contains("--map order_id="),
        "{message}"
    );
    let message = layout(
        b"Nr,Total,Land\n1,2,DE\n",
        Some("order_id=Nr,amount=Sum,country=Land"),
    );
    assert!(
        message.contains("`--map amount=Sum`") && message.contains("it has `Nr, Total, Land`"),
        "{message}"
    );
    let missing = read_path(Path::new("/nonexistent/orders.csv"), Format::Auto, None);
    assert!(
        matches!(missing, Err(SourceError::Unreadable(message)) if message.contains("/nonexistent/orders.csv"))
    );
    assert!(read("empty.csv", b"").orders.is_empty());
}

const RETAIL: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

#[test]
fn invoices_are_orders_with_exact_totals_wherever_their_lines_stand() {
    let csv = format!(
        "{RETAIL}\
         2,A,first,1,2010-12-01 08:00:00,0.10,,EIRE\n\
         1,B,\"a, b\",3,2010-12-01 08:26:00,0.10,17850,United Kingdom\n\
         C9,A,,-1,2010-12-01 08:27:00,5,17850,United Kingdom\n\
         2,C,,2,2010-12-01 08:01:00,0.10,12,EIRE\n\
         C9,B,,bad,bad,bad,17850,Narnia\n\
         3,D,,1,2010-12-01 09:00:00,0,,France\n\
         4,E,,1,2010-12-01 09:00:00,0.125,,Channel Islands\n\
         5,E,,3,2010-12-01 09:00:00,0.125,,RSA\n\
         A6,E,,-1,2010-12-01 09:00:00,11062.06,,United Kingdom\n\
         A7,E,,1,2010-12-01 09:00:00,11062.06,,Unspecified\n"
    );
    let read = read("retail.csv", csv.as_bytes());
    assert!(read.rejected.is_empty(), "{:?}", read.rejected);
    // C9 is a cancellation, 3 and A6 have nothing to pay.
    assert_eq!(read.skipped, 3);
    let got: Vec<_> = read
        .orders
        .iter()
        .map(|(line, order)| {
            let text = |name: &str| order[name].to_string().replace('"', "");
            (
                *line,
                text("order_id"),
                text("amount"),
                text("country"),
                text("timestamp"),
            )
        })
        .collect();
    let order = |line, id: &str, amount: &str, country: &str, time: &str| {
        (
            line,
            id.to_owned(),
            amount.to_owned(),
            country.to_owned(),
            format!("2010-12-01T{time}:00.000Z"),
        )
    };
    assert_eq!(
        got,
        [
            // 0.10 + 2 * 0.10, which is 0.30000000000000004 in floats; the last line's time.
            order(2, "2", "0.3", "IE", "08:01"),
            order(3, "1", "0.3", "GB", "08:26"),
            // 0.125 is a tie and goes to the even 0.12; 0.375 to the even 0.38.
            order(8, "4", "0.12", "JE", "09:00"),
            order(9, "5", "0.38", "ZA", "09:00"),
            order(11, "A7", "11062.06", "ZZ", "09:00"),
        ]
    );
    assert_eq!(read.orders[0].1["customer_id"], "12");
    assert_eq!(
        read.orders[1].1["items"][0],
        serde_json::json!({"sku": "B", "description": "a, b", "quantity": 3, "unit_price": 0.10})
    );
    assert_eq!(read.orders[0].1["items"].as_array().unwrap().len(), 2);
}

#[test]
fn an_invoice_with_broken_lines_is_left_out_once_and_the_others_stay() {
    let csv = format!(
        "{RETAIL}\
         1,A,,1,2010-12-01 08:00:00,1,,France\n\
         1,B,,x,2010-12-01 08:00:00,1,,France\n\
         1,B,,1,2010-12-01 08:00:00,1e,,France\n\
         2,A,,1,2010-12-01 08:00:00,1,,Narnia\n\
         3,A,,1,yesterday,1,,France\n\
         4,\"A,,1,2010-12-01 08:00:00,1,,France\n\
         ,A,,1,2010-12-01 08:00:00,1,,France\n\
         6,A,,1,2010-12-01 08:00:00,1,,France\n"
    );
    let read = read("retail.csv", csv.as_bytes());
    assert_eq!(
        codes(&read),
        [
            (3, "invalid_value"),
            (4, "invalid_amount"),
            (5, "invalid_country"),
            (6, "invalid_timestamp"),
            (7, "invalid_line"),
            (8, "invalid_line"),
        ]
    );
    assert_eq!(
        read.rejected[0].2,
        "`Quantity` is `x`, must be an integer; order `1` is left out"
    );
    assert_eq!((read.left_out, read.skipped), (5, 0));
    assert_eq!(read.orders.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [9]);
}
