//! The header Map-Position, from any client: two of them, with a space between.
#![no_main]

// by its file: the crate it belongs to would bring the client for Kubernetes and everything below it
#[allow(dead_code)]
#[path = "../../src/map/position.rs"]
mod position;

use libfuzzer_sys::fuzz_target;
use position::Position;

fuzz_target!(|text: &str| {
    let mut positions = text.split(' ').filter_map(|text| text.parse::<Position>().ok());
    let (Some(own), Some(shown)) = (positions.next(), positions.next()) else { return };
    for read in [&own, &shown] {
        assert_eq!(read.to_string().parse().as_ref(), Ok(read), "it is written as it reads");
        assert!(!read.is_behind(read));
    }
    assert!(!own.keeping(&shown).is_behind(&shown), "what a reader was shown is kept");
    assert!(!own.keeping(&shown).is_behind(&own));
});
