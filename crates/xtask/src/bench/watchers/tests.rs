use super::*;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn event(key: &[u8], revision: u8) -> Vec<u8> {
    let kv = [field(1, key), vec![2 << 3, 1, 3 << 3, revision, 4 << 3, 1]].concat();
    field(11, &field(2, &kv))
}

fn message(fields: &[Vec<u8>]) -> Vec<u8> {
    let body = fields.concat();
    [&[0, 0, 0, 0, body.len() as u8], &body[..]].concat()
}

fn created(id: u8, revision: u8) -> Vec<u8> {
    let header = field(1, &[3 << 3, revision]);
    message(&[header, vec![2 << 3, id, 3 << 3, 1]])
}

fn stream() -> Stream {
    Stream {
        partial: Vec::new(),
        newest: vec![0; 2],
        consumed: 0,
    }
}

fn hear(stream: &mut Stream, bytes: &[u8]) -> Result<Vec<(usize, u64, u64)>, String> {
    let mut heard = Vec::new();
    stream.on_data(bytes, &mut 0, |one| {
        heard.push((one.watcher, one.number, one.revision));
    })?;
    Ok(heard)
}

#[test]
fn events_are_read_wherever_they_are_cut() {
    let bytes = [
        created(0, 4),
        created(1, 5),
        message(&[event(b"bench/00000017", 5), event(b"bench/00000018", 6)]),
        message(&[vec![2 << 3, 1], event(b"bench/00000018", 6)]),
    ]
    .concat();
    for cut in 0..=bytes.len() {
        let mut stream = stream();
        let mut heard = hear(&mut stream, &bytes[..cut]).unwrap();
        heard.extend(hear(&mut stream, &bytes[cut..]).unwrap());
        assert_eq!(heard, [(0, 17, 5), (0, 18, 6), (1, 18, 6)]);
        assert_eq!(stream.consumed as usize, bytes.len());
    }
}

#[test]
fn what_is_lost_repeated_or_out_of_order_is_an_error() {
    for revision in [0, 3, 4, 6] {
        let mut stream = stream();
        hear(&mut stream, &created(0, 4)).unwrap();
        let error = hear(&mut stream, &message(&[event(b"bench/00000001", revision)]));
        assert!(error.unwrap_err().contains("came after 4"));
    }
}

#[test]
fn what_is_no_event_of_ours_is_an_error() {
    let answers = [
        message(&[event(b"other", 1)]),
        message(&[vec![2 << 3, 9], event(b"bench/00000001", 1)]),
        message(&[vec![2 << 3, 0, 4 << 3, 1]]),
        message(&[vec![11 << 3 | 2, 100]]),
    ];
    for answer in answers {
        assert!(hear(&mut stream(), &answer).is_err(), "{answer:?}");
    }
}
