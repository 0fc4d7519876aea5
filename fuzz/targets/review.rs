//! Admission review to patch: whatever the body, an answer or an error; and what is answered keeps its promises.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let settings = &*common::SETTINGS;
    let _ = common::answer(body, settings);
    // written anew: the API server repeats no key and writes no broken UTF-8
    if let Ok(review) = serde_json::from_slice::<Value>(body) {
        common::stamped_twice(&review, settings);
    }
});
