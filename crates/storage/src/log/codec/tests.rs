use super::*;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

const MEMBER: u64 = 0x07e7_44ce_af96_c366;

#[test]
fn entries_read_with_and_without_zeros_and_write_with_them() {
    let old = Bytes::from(unhex("0800 1002 1803 2203 616263"));
    let new = Bytes::from(unhex("1002 1803 2203 616263"));
    let wanted = Entry {
        kind: EntryKind::Normal,
        term: Term(2),
        index: LogIndex(3),
        data: Bytes::from_static(b"abc"),
    };
    assert_eq!(entry(&old), Ok(wanted.clone()));
    assert_eq!(entry(&new), Ok(wanted.clone()));
    let mut written = Vec::new();
    put_entry(&mut written, &wanted);
    assert_eq!(written, old);

    let empty = Entry {
        data: Bytes::new(),
        kind: EntryKind::ConfChange,
        ..wanted
    };
    written.clear();
    put_entry(&mut written, &empty);
    assert_eq!(written, unhex("0801 1002 1803"));
    assert_eq!(entry(&Bytes::from(written)), Ok(empty));
    assert_eq!(
        entry_ref(&unhex("0802")),
        Err(WireError::Value { field: 1, value: 2 })
    );
}

#[test]
fn snapshot_metadata_is_that_of_a_live_3_7_file() {
    let bytes = unhex("0a0c 08e686dbfcea99d1f307 2800 1021 1802");
    let meta = snapshot_meta(&bytes).unwrap();
    assert_eq!(meta.index, LogIndex(0x21));
    assert_eq!(meta.term, Term(2));
    assert_eq!(meta.conf.voters, [MEMBER]);
    let mut written = Vec::new();
    put_snapshot_meta(&mut written, &meta);
    assert_eq!(written, bytes);
}

#[test]
fn configurations_read_packed_lists() {
    let conf = conf_state(&unhex("0a02 0102 1003 2801")).unwrap();
    assert_eq!(conf.voters, [1, 2]);
    assert_eq!(conf.learners, [3]);
    assert!(conf.auto_leave);
}

#[test]
fn hard_state_keeps_its_zeros() {
    let bytes = unhex("0802 10e686dbfcea99d1f307 1800");
    let state = hard_state(&bytes).unwrap();
    assert_eq!(
        state,
        HardState {
            term: Term(2),
            vote: MEMBER,
            commit: LogIndex(0)
        }
    );
    let mut written = Vec::new();
    put_hard_state(&mut written, &state);
    assert_eq!(written, bytes);
}

#[test]
fn no_prefix_of_a_message_panics() {
    let bytes = unhex("0800 10ffffffffffffffffff01 1803 2203 616263");
    for end in 0..bytes.len() {
        let _ = entry_ref(&bytes[..end]);
        let _ = hard_state(&bytes[..end]);
        let _ = conf_state(&bytes[..end]);
        let _ = snapshot_meta(&bytes[..end]);
    }
}
