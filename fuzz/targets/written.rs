//! Of both forms of the configuration.

use external_ip_core::settings::{parse, render};

/// Reads `text`; where it is accepted, what is written out is accepted as well and means the same.
pub fn reads_the_same(text: &str) {
    match parse(text) {
        Err(error) => assert!(!error.to_string().is_empty(), "an error says something"),
        Ok(parsed) => {
            let written = render(&parsed.settings);
            let again =
                parse(&written).unwrap_or_else(|e| panic!("{e}\nin what was written of it:\n{written}"));
            assert_eq!(again.settings, parsed.settings, "{written}");
            assert_eq!(render(&again.settings), written);
            if let Some(translation) = parsed.origin_translation {
                let again =
                    parse(&translation).unwrap_or_else(|e| panic!("{e}\nin the translation:\n{translation}"));
                assert_eq!(again.settings, parsed.settings, "{translation}");
            }
        }
    }
}
