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
