//! From an opening bracket to behind the one that closes it, 64 bytes at a time: for each block one word says where
//! the quotes are, one where brackets open and one where they close, so that nothing depends on what a string holds.
//! (The idea is simdjson's: Langdale and Lemire, Parsing Gigabytes of JSON per Second, 2019.)

use wide::u8x16;

const BLOCK: usize = 64;

/// Where a block has what; the lowest bit is the first byte's.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Places {
    quotes: u64,
    backslashes: u64,
    opening: u64,
    closing: u64,
}

/// Bytes up to and with the closing bracket; `None` where there is none. `text` begins with an opening bracket. That a
/// bracket is closed by its like is not checked.
pub(super) fn brackets(text: &[u8]) -> Option<usize> {
    let mut strings = Strings::default();
    let mut depth = 0;
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut last = [b' '; BLOCK];
    last.get_mut(..rest.len())?.copy_from_slice(rest);
    for (index, block) in blocks.iter().chain([&last]).enumerate() {
        let mut places = places(block);
        let outside = !strings.cover(places);
        places.opening &= outside;
        places.closing &= outside;
        if places.closing.count_ones() >= depth
            && let Some(end) = end(places, depth)
        {
            return Some(index * BLOCK + end);
        }
        depth = depth + places.opening.count_ones() - places.closing.count_ones();
    }
    None
}

/// Behind the bracket that closes the last of `depth` open ones, if it is in this block.
fn end(Places { opening, mut closing, .. }: Places, depth: u32) -> Option<usize> {
    let mut closed = 1;
    while closing != 0 {
        let before = (closing & closing.wrapping_neg()) - 1;
        if depth + (opening & before).count_ones() == closed {
            return Some(before.count_ones() as usize + 1);
        }
        closed += 1;
        closing &= closing - 1;
    }
    None
}

/// What one block leaves to the next.
#[derive(Debug, Default)]
struct Strings {
    /// All ones within a string.
    within: u64,
    /// The next byte is behind a backslash.
    escaped: bool,
}

impl Strings {
    /// Which bytes are part of a string.
    fn cover(&mut self, places: Places) -> u64 {
        let quotes = if places.backslashes == 0 && !self.escaped {
            places.quotes
        } else {
            places.quotes & !self.escaped(places.backslashes)
        };
        // each quote turns over all bits from its own on
        let turned = [1, 2, 4, 8, 16, 32].iter().fold(quotes, |bits, by| bits ^ (bits << by));
        let covered = turned ^ self.within;
        self.within = if covered >> (BLOCK - 1) == 0 { 0 } else { u64::MAX };
        covered
    }

    fn escaped(&mut self, mut backslashes: u64) -> u64 {
        let mut escaped = u64::from(std::mem::take(&mut self.escaped));
        backslashes &= !escaped;
        while backslashes != 0 {
            let place = backslashes & backslashes.wrapping_neg();
            let next = place << 1;
            self.escaped = next == 0;
            escaped |= next;
            backslashes &= !(place | next);
        }
        escaped
    }
}

fn places(block: &[u8; BLOCK]) -> Places {
    // brackets and braces differ in this bit
    let fold = u8x16::splat(0x20);
    let mut places = Places::default();
    let (parts, _) = block.as_chunks::<16>();
    for (index, part) in parts.iter().enumerate() {
        let bytes = u8x16::new(*part);
        let folded = bytes | fold;
        let find =
            |bytes: u8x16, byte| u64::from(bytes.simd_eq(u8x16::splat(byte)).to_bitmask()) << (16 * index);
        places.quotes |= find(bytes, b'"');
        places.backslashes |= find(bytes, b'\\');
        places.opening |= find(folded, b'{');
        places.closing |= find(folded, b'}');
    }
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Bytes that matter here more often than others, also those that are brackets but for one bit.
    fn bytes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        let sharp = prop::sample::select(b"\"\"\\{}[];{=\x1b\x5b\xfb ".to_vec());
        prop::collection::vec(prop_oneof![3 => sharp, 1 => any::<u8>()], count)
    }

    /// Byte by byte.
    fn plainly(text: &[u8]) -> Option<usize> {
        let (mut depth, mut within, mut escaped) = (0, false, false);
        for (place, byte) in text.iter().enumerate() {
            let bent = std::mem::take(&mut escaped);
            match byte {
                b'\\' => escaped = !bent,
                b'"' if !bent => within = !within,
                b'{' | b'[' if !within => depth += 1,
                b'}' | b']' if !within && depth == 1 => return Some(place + 1),
                b'}' | b']' if !within => depth -= 1,
                _ => {}
            }
        }
        None
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[a-z/.:]{0,30}", "[\"\\\\{}\\[\\]\u{1}ü]{0,12}"].prop_map(Value::from);
        let leaf = prop_oneof![text, any::<i64>().prop_map(Value::from), Just(Value::Null)];
        leaf.prop_recursive(6, 60, 6, |inner| {
            let pairs = prop::collection::btree_map("[a-z\"\\\\{]{0,9}", inner.clone(), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::from),
                pairs.prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_ends_where_the_value_ends(value in value(), behind in bytes(0..70)) {
            let mut text = Value::from(vec![value]).to_string().into_bytes();
            let length = text.len();
            text.extend(behind);
            prop_assert_eq!(brackets(&text), Some(length));
        }

        #[test]
        fn whatever_the_bytes_it_says_what_a_slower_reader_says(behind in bytes(0..200)) {
            let text = [b"{".as_slice(), &behind].concat();
            prop_assert_eq!(brackets(&text), plainly(&text));
        }
    }
}
