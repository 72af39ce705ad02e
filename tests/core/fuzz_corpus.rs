//! What the fuzz targets in `stress/fuzz` keep, played again: each input once found its way to new code.

use std::fs;
use std::path::Path;

use crate::naive_model::{Room, play};

fn replay(name: &str, room: Room) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stress/fuzz/corpus").join(name);
    let inputs = fs::read_dir(&folder).expect("each target has a corpus");
    let mut played = 0;
    for input in inputs {
        let path = input.expect("a folder can be listed").path();
        println!("{}", path.display());
        play(room, &fs::read(&path).expect("an input can be read"));
        played += 1;
    }
    assert!(played > 0, "no inputs in {}", folder.display());
}

#[test]
fn the_corpus_of_the_map_is_as_the_model() {
    replay("map", Room::Map);
}

#[test]
fn the_corpus_of_the_policy_is_as_the_model() {
    replay("policy", Room::Policy);
}

#[test]
fn the_corpus_of_expiry_is_as_the_model() {
    replay("expiry", Room::Expiry);
}

#[test]
fn the_corpus_of_the_cache_is_as_the_model() {
    replay("cache", Room::Cache);
}
