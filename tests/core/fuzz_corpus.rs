//! Replays the corpus of the fuzz targets in `stress/fuzz`. Each input once reached new code.

use std::fs;
use std::path::Path;

use crate::naive_model::{FuzzTarget, check_input};

fn replay(name: &str, target: FuzzTarget) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stress/fuzz/corpus").join(name);
    let inputs = fs::read_dir(&folder).expect("each target has a corpus");
    let mut played = 0;
    for input in inputs {
        let path = input.expect("a folder can be listed").path();
        println!("{}", path.display());
        check_input(target, &fs::read(&path).expect("an input can be read"));
        played += 1;
    }
    assert!(played > 0, "no inputs in {}", folder.display());
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_fuzz_corpus_of_the_map_agrees_with_the_model() {
    replay("map", FuzzTarget::Map);
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_fuzz_corpus_of_the_policy_agrees_with_the_model() {
    replay("policy", FuzzTarget::Policy);
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_fuzz_corpus_of_expiry_agrees_with_the_model() {
    replay("expiry", FuzzTarget::Expiry);
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_fuzz_corpus_of_the_cache_agrees_with_the_model() {
    replay("cache", FuzzTarget::Cache);
}
