//! Whatever is written in whatever pieces: what comes out is what a search through the whole text would have
//! masked, but for up to three bytes at the end of a piece.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use proptest::prelude::*;

use super::{
    forms::Forms,
    mask::{SecretPatterns, StreamMask},
};

/// Where a form is, and whether line ends inside of it do not count.
type Occurrence = (Range<usize>, bool);

/// All places in a text where a form is.
fn all_occurrences(text: &[u8], forms: &Forms) -> Vec<Occurrence> {
    let mut found = occurrences(text, &forms.exact, false);
    found.extend(occurrences(text, &forms.wrapped, true));
    found
}

fn occurrences(text: &[u8], forms: &BTreeSet<Vec<u8>>, wrapped: bool) -> Vec<Occurrence> {
    let starts = 0..text.len();
    let found = starts.flat_map(|start| {
        let ends = forms
            .iter()
            .filter_map(move |form| end_of(text, start, form, wrapped));
        ends.map(move |end| (start..end, wrapped))
    });
    found.collect()
}

/// Where a form ends that begins here.
fn end_of(text: &[u8], start: usize, form: &[u8], wrapped: bool) -> Option<usize> {
    let mut at = start;
    for (index, byte) in form.iter().enumerate() {
        if wrapped && index > 0 {
            let rest = &text[at.min(text.len())..];
            at += [b"\r\n" as &[u8], b"\n\r", b"\r\r", b"\n", b"\r"]
                .into_iter()
                .find(|line_end| rest.starts_with(line_end))
                .map_or(0, <[u8]>::len);
        }
        if text.get(at) != Some(byte) {
            return None;
        }
        at += 1;
    }
    Some(at)
}

/// Runs the masks over a text that comes in pieces which end at `cuts`.
fn run(forms: &Forms, text: &[u8], cuts: &[usize], take: usize) -> Vec<u8> {
    let patterns = Arc::new(SecretPatterns::of(forms).expect("patterns"));
    let mut mask = StreamMask::new(patterns);
    let (mut out, mut from) = (Vec::new(), 0);
    let mut buffer = vec![0; take];
    for &cut in cuts.iter().chain([&text.len()]) {
        mask.push(&text[from..cut]);
        from = cut;
        while mask.has_released() {
            let length = mask.take(&mut buffer);
            out.extend_from_slice(&buffer[..length]);
        }
    }
    mask.finish();
    while mask.has_released() {
        let length = mask.take(&mut buffer);
        out.extend_from_slice(&buffer[..length]);
    }
    out
}

/// Whether a byte may have been passed on before its form was seen: at one of the cuts less than four bytes
/// of each of its forms had come.
fn may_be_shown(at: usize, text: &[u8], found: &[Occurrence], cuts: &[usize]) -> bool {
    let about = || found.iter().filter(move |(range, _)| range.contains(&at));
    let mut cuts = cuts.iter().filter(|cut| **cut > at);
    cuts.any(|&cut| {
        about().all(|(range, wrapped)| {
            let come = text[range.start..cut.min(range.end)].iter();
            let counted = come.filter(|byte| !wrapped || !b"\r\n".contains(byte));
            range.end > cut && counted.count() < 4
        })
    })
}

fn secret() -> impl Strategy<Value = String> {
    prop_oneof![
        // Few letters: values that overlap each other and themselves.
        "[ab]{4,9}",
        "[a-zA-Z0-9_-]{4,40}",
        "[ -~é☃\n]{4,40}",
        "[ab\n ]{4,30}",
    ]
}

/// A text with forms of the secrets in it, and parts of them.
fn text(forms: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let planted = (prop::sample::select(forms), any::<u8>(), any::<bool>());
    let planted = planted.prop_map(|(form, cut, is_wrapped)| {
        let mut form = form;
        if cut % 4 == 0 {
            form.truncate(usize::from(cut) % (form.len() + 1));
        }
        if is_wrapped {
            let at = usize::from(cut) % (form.len() + 1);
            form.splice(
                at..at,
                [b"\r\n" as &[u8], b"\n"][usize::from(cut % 2)].to_vec(),
            );
        }
        form
    });
    let noise = prop_oneof!["[ab]{0,6}", "[ -~\n\r]{0,20}", "[a-f0-9]{0,8}"];
    let part = prop_oneof![3 => planted, 2 => noise.prop_map(String::into_bytes)];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

fn case() -> impl Strategy<Value = (Vec<String>, Vec<u8>, Vec<usize>, usize)> {
    let secrets = prop::collection::vec(secret(), 1..4);
    secrets
        .prop_flat_map(|secrets| {
            let forms = Forms::of(secrets.iter().map(String::as_str));
            let all: Vec<_> = forms.exact.iter().chain(&forms.wrapped).cloned().collect();
            (Just(secrets), text(all))
        })
        .prop_flat_map(|(secrets, text)| {
            let cuts = prop::collection::vec(0..=text.len(), 0..20);
            (Just(secrets), Just(text), cuts, 1usize..200)
        })
        .prop_map(|(secrets, text, mut cuts, take)| {
            cuts.sort_unstable();
            (secrets, text, cuts, take)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_comes_out_is_the_text_with_every_form_masked((secrets, text, cuts, take) in case()) {
        let forms = Forms::of(secrets.iter().map(String::as_str));
        let found = all_occurrences(&text, &forms);
        let out = run(&forms, &text, &cuts, take);
        prop_assert_eq!(out.len(), text.len());
        for (at, (&before, &after)) in text.iter().zip(&out).enumerate() {
            let is_masked = before != b'\n' && found.iter().any(|(range, _)| range.contains(&at));
            if is_masked && after != b'*' {
                prop_assert!(may_be_shown(at, &text, &found, &cuts), "{at} of {text:?} cut at {cuts:?}");
            }
            if !is_masked || after != b'*' {
                prop_assert_eq!(after, before, "{} of {:?} cut at {:?}", at, text, cuts);
            }
        }
    }

    /// In one piece nothing is shown at all, whatever follows or does not.
    #[test]
    fn a_text_that_comes_at_once_has_no_form_left((secrets, text, _, take) in case()) {
        let forms = Forms::of(secrets.iter().map(String::as_str));
        let found = all_occurrences(&text, &forms);
        let mut expected = text.clone();
        for at in found.into_iter().flat_map(|(range, _)| range) {
            if expected[at] != b'\n' {
                expected[at] = b'*';
            }
        }
        prop_assert_eq!(run(&forms, &text, &[], take), expected);
    }
}
