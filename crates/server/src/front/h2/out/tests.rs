use proptest::prelude::*;

use super::*;

fn gathered(out: &OutBuffer) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = out.slices(&mut slices);
    slices[..count]
        .iter()
        .flat_map(|slice| slice.to_vec())
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Push(usize),
    Consume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..9_000).prop_map(Step::Append),
        (0usize..9_000).prop_map(Step::Push),
        (0usize..20_000).prop_map(Step::Consume),
    ]
}

proptest! {
    #[test]
    fn bytes_leave_in_order(steps in proptest::collection::vec(step(), 1..40)) {
        let mut out = OutBuffer::default();
        let mut model = VecDeque::new();
        let mut next = 0u8;
        let mut fresh = |length: usize| -> Vec<u8> {
            (0..length).map(|_| { next = next.wrapping_add(1); next }).collect()
        };
        for step in steps {
            match step {
                Step::Append(length) => {
                    let bytes = fresh(length);
                    out.tail().extend_from_slice(&bytes);
                    model.extend(bytes);
                }
                Step::Push(length) => {
                    let bytes = fresh(length);
                    model.extend(bytes.iter().copied());
                    out.push(bytes.into());
                }
                Step::Consume(length) => {
                    let length = length.min(gathered(&out).len());
                    out.consume(length);
                    model.drain(..length);
                }
            }
            prop_assert_eq!(out.len(), model.len());
            let bytes = gathered(&out);
            prop_assert!(model.iter().zip(&bytes).all(|(a, b)| a == b));
            prop_assert!(bytes.len() == model.len() || !bytes.is_empty());
        }
    }
}

#[derive(Clone, Debug)]
enum Piece {
    Data(u32, usize),
    Ping,
    /// A frame whose payload is shared.
    Shared(u32, usize),
    Consume(usize),
}

fn piece() -> impl Strategy<Value = Piece> {
    let stream = || (0u32..2).prop_map(|n| 2 * n + 1);
    prop_oneof![
        4 => (stream(), 1usize..300).prop_map(|(stream, length)| Piece::Data(stream, length)),
        1 => (stream(), 1usize..12_000).prop_map(|(stream, length)| Piece::Data(stream, length)),
        1 => Just(Piece::Ping),
        1 => (stream(), 4_096usize..9_000).prop_map(|(stream, length)| Piece::Shared(stream, length)),
        1 => (0usize..400).prop_map(Piece::Consume),
    ]
}

/// Kind, stream and payload of every frame.
fn frames(mut wire: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(bytes) = wire.first_chunk() {
        let header = frame::Header::parse(bytes);
        let (payload, rest) = wire[HEADER_BYTES..].split_at(header.length);
        frames.push((header.kind, header.stream, payload.to_vec()));
        wire = rest;
    }
    assert!(wire.is_empty());
    frames
}

proptest! {
    #[test]
    fn payloads_that_follow_each_other_share_a_frame(
        pieces in proptest::collection::vec(piece(), 1..60),
    ) {
        let mut out = OutBuffer::default();
        let (mut wire, mut expected) = (Vec::new(), Vec::<(u8, u32, Vec<u8>)>::new());
        let mut fill = 0u8;
        // Whether the last frame may still grow.
        let mut grows = false;
        for piece in pieces {
            fill = fill.wrapping_add(1);
            match piece {
                Piece::Data(stream, length) => {
                    let bytes = vec![fill; length];
                    out.data(stream, length).extend_from_slice(&bytes);
                    match expected.last_mut() {
                        Some((_, last, payload))
                            if grows && *last == stream
                                && payload.len() + length <= PAYLOAD_BYTES_MAX =>
                        {
                            payload.extend(bytes);
                        }
                        _ => expected.push((frame::DATA, stream, bytes)),
                    }
                    grows = true;
                }
                Piece::Ping => {
                    out.tail().extend_from_slice(&frame::header(8, frame::PING, 0, 0));
                    out.tail().extend_from_slice(&[fill; 8]);
                    expected.push((frame::PING, 0, vec![fill; 8]));
                    grows = false;
                }
                Piece::Shared(stream, length) => {
                    let header = frame::header(length, frame::DATA, 0, stream);
                    out.tail().extend_from_slice(&header);
                    out.push(vec![fill; length].into());
                    expected.push((frame::DATA, stream, vec![fill; length]));
                    grows = false;
                }
                Piece::Consume(length) => {
                    let bytes = gathered(&out);
                    let length = length.min(bytes.len());
                    wire.extend_from_slice(&bytes[..length]);
                    out.consume(length);
                    grows = false;
                }
            }
        }
        while !out.is_empty() {
            let bytes = gathered(&out);
            wire.extend_from_slice(&bytes);
            out.consume(bytes.len());
        }
        prop_assert_eq!(frames(&wire), expected);
    }
}
