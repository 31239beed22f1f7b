//! The examples of RFC 7541 appendix C, and what must be refused.

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Collected(Vec<(String, String)>);

impl Fields for Collected {
    fn field(&mut self, field: Field<'_>) {
        let text = |value: Value<'_>| String::from_utf8_lossy(value.as_slice()).into_owned();
        assert_eq!(field.kind, Name::of(text(field.name).as_bytes()));
        self.0.push((text(field.name), text(field.value)));
    }

    fn resolve(&self, _: &[u8]) -> u16 {
        7
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let pairs = digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

fn decode(decoder: &mut Decoder, hex: &str) -> Result<Vec<(String, String)>, Malformed> {
    let mut fields = Collected::default();
    decoder.decode(&bytes(hex), &mut fields)?;
    Ok(fields.0)
}

fn check(blocks: &[(&str, &str, usize)]) {
    check_with(Decoder::new(), blocks);
}

/// Blocks in order: hex, `name: value` lines, table size afterwards.
fn check_with(mut decoder: Decoder, blocks: &[(&str, &str, usize)]) {
    for (hex, expected, table_bytes) in blocks {
        let fields = decode(&mut decoder, hex).unwrap();
        let lines: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        assert_eq!(lines.join("\n"), *expected);
        assert_eq!(decoder.table_bytes, *table_bytes);
        let sum: usize = decoder.table.iter().map(Entry::size).sum();
        assert_eq!(sum, *table_bytes);
    }
}

const FIRST: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com";
const SECOND: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n\
     cache-control: no-cache";
const THIRD: &str = ":method: GET\n:scheme: https\n:path: /index.html\n\
     :authority: www.example.com\ncustom-key: custom-value";

#[test]
fn c2_representations() {
    let literal = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    check(&[(literal, "custom-key: custom-header", 55)]);
    check(&[(
        "040c 2f73 616d 706c 652f 7061 7468",
        ":path: /sample/path",
        0,
    )]);
    check(&[(
        "1008 7061 7373 776f 7264 0673 6563 7265 74",
        "password: secret",
        0,
    )]);
    check(&[("82", ":method: GET", 0)]);
}

#[test]
fn c3_requests_without_huffman() {
    check(&[
        (
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            FIRST,
            57,
        ),
        ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND, 110),
        (
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            THIRD,
            164,
        ),
    ]);
}

#[test]
fn c4_requests_with_huffman() {
    check(&[
        ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", FIRST, 57),
        ("8286 84be 5886 a8eb 1064 9cbf", SECOND, 110),
        (
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            THIRD,
            164,
        ),
    ]);
}

#[test]
fn c6_responses_with_huffman_and_eviction() {
    let mut decoder = Decoder::new();
    // The example's table has 256 bytes.
    decode(&mut decoder, "3fe101").unwrap();
    check_with(
        decoder,
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
                 location: https://www.example.com",
                222,
            ),
            (
                "4883 640e ffc1 c0bf",
                ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n\
                 location: https://www.example.com",
                222,
            ),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n\
                 location: https://www.example.com\ncontent-encoding: gzip\n\
                 set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                215,
            ),
        ],
    );
}

#[test]
fn c1_integers() {
    let decode = |input: &[u8], bits| integer(&mut &input[..], bits);
    assert_eq!(decode(&[0b01010], 5), Ok(10));
    assert_eq!(decode(&[0b11111, 0b10011010, 0b00001010], 5), Ok(1337));
    assert_eq!(decode(&[42], 8), Ok(42));
    assert_eq!(
        decode(&[0x7f, 0xff, 0xff, 0xff, 0x7f], 7),
        Ok(127 + (1 << 28) - 1)
    );
    assert_eq!(
        decode(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x00], 7),
        Err(Malformed)
    );
    assert_eq!(decode(&[0x7f, 0xff], 7), Err(Malformed));
    assert_eq!(decode(&[], 7), Err(Malformed));
}

#[test]
fn malformed_blocks_are_refused() {
    let cases = [
        ("80", "index zero"),
        ("be", "beyond the tables"),
        ("ff", "an integer that ends early"),
        ("7e00", "a name beyond the tables"),
        ("4003 6162", "a string that ends early"),
        ("0081 ff", "padding of eight bits"),
        ("0081 1c00", "padding that is not all ones"),
        ("0084 ffff ffff 00", "EOS in a string"),
        ("8220", "a size update after a field"),
        ("3fe2 1f", "a table larger than announced"),
    ];
    for (hex, why) in cases {
        assert_eq!(decode(&mut Decoder::new(), hex), Err(Malformed), "{why}");
    }
}

#[test]
fn a_table_of_zero_holds_nothing() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, "20 400a 6375 7374 6f6d 2d6b 6579 0163").unwrap();
    assert_eq!(decoder.table.len(), 0);
    assert_eq!(decode(&mut decoder, "be"), Err(Malformed));
}

#[test]
fn names_are_checked() {
    for name in ["", "Upper", "sp ace", "a:b", "ü", "a\0"] {
        assert_eq!(Name::of(name.as_bytes()), Name::Invalid, "{name:?}");
    }
    assert_eq!(Name::of(b":other"), Name::UnknownPseudo);
    assert_eq!(Name::of(b"x-y_z.1"), Name::Other);
}

proptest! {
    #[test]
    fn huffman_round_trip(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut coded, mut plain) = (Vec::new(), Vec::new());
        huffman::encode(&text, &mut coded);
        prop_assert!(huffman::decode(&coded, &mut plain).is_some());
        prop_assert_eq!(plain, text);
    }

    #[test]
    fn any_bytes_decode_or_fail(
        blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        let mut decoder = Decoder::new();
        for block in blocks {
            let _ = decoder.decode(&block, &mut Collected::default());
            prop_assert!(decoder.table_bytes <= TABLE_BYTES_MAX);
            let sum: usize = decoder.table.iter().map(Entry::size).sum();
            prop_assert_eq!(sum, decoder.table_bytes);
        }
    }
}
