//! The judge of what is true. It knows the API server's history and what each replica has seen of it, as plain data,
//! and shares nothing with the product: no type, no constant, no function. A test holds it to that.

mod addresses;
mod entries;
mod history;
mod quiet;
mod shown;
mod stamp;
mod truth;

pub(crate) use history::{History, Kind};
pub(crate) use quiet::Promise;
pub(crate) use shown::{Shown, ports_stay};
pub(crate) use truth::{Seen, Truth};

/// What is wrong, in a sentence.
pub(crate) type Verdict = Result<(), String>;

#[test]
fn the_judge_shares_nothing_with_the_product() {
    let sources = [
        include_str!("mod.rs"),
        include_str!("entries.rs"),
        include_str!("history.rs"),
        include_str!("addresses.rs"),
        include_str!("quiet.rs"),
        include_str!("shown.rs"),
        include_str!("stamp.rs"),
        include_str!("truth.rs"),
    ];
    let crate_name = ["external", "ip", "core"].join("_");
    let above = ["crate", "::"].concat();
    for source in sources {
        assert!(!source.contains(&crate_name), "the judge uses the product");
        assert!(
            source.lines().all(|l| !l.contains(&above) || l.contains("pub(")),
            "the judge uses the model"
        );
    }
}
