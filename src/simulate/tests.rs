use std::collections::BTreeMap;
use std::convert::Infallible;

use super::*;

fn trace_of(keys: impl IntoIterator<Item = u64>, limits: Limits) -> Trace {
    let mut trace = Trace::new(limits);
    keys.into_iter().for_each(|key| trace.record(Seed::fixed(0).mix(key)));
    trace
}

fn ratio(trace: &Trace, method: Method, capacity: u64) -> f64 {
    let Ok(ratio) = trace.hit_ratio(method, capacity, || Ok::<(), Infallible>(()));
    ratio.expect("there are enough keys")
}

/// Keys drawn so that low ones are frequent.
fn skewed(count: usize) -> impl Iterator<Item = u64> {
    let mut random = 9u64;
    std::iter::repeat_with(move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let part = (random >> 40) as f64 / (1u64 << 24) as f64;
        (part.powi(6) * 40_000.0) as u64
    })
    .take(count)
}

/// Belady's rule by looking ahead at each step.
fn naive_optimum(keys: &[u64], capacity: usize) -> usize {
    let next = |key: u64, from: usize| {
        keys[from..].iter().position(|&other| other == key).map_or(usize::MAX, |at| at + from)
    };
    let mut held: BTreeMap<u64, usize> = BTreeMap::new();
    let mut hits = 0;
    for (at, &key) in keys.iter().enumerate() {
        hits += usize::from(held.remove(&key).is_some());
        held.insert(key, next(key, at + 1));
        held.retain(|_, needed| *needed != usize::MAX);
        if held.len() > capacity {
            let last = *held.iter().max_by_key(|&(_, needed)| needed).expect("it holds some").0;
            held.remove(&last);
        }
    }
    hits
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn the_optimum_has_as_many_hits_as_a_naive_look_ahead() {
    let keys: Vec<u64> = skewed(3_000).map(|key| key % 97).collect();
    let trace = trace_of(keys.iter().copied(), Limits::EXACT);
    for capacity in [0, 1, 5, 20, 96, 97, 1_000] {
        let expected = naive_optimum(&keys, capacity) as f64 / keys.len() as f64;
        assert!((ratio(&trace, Method::Optimum, capacity as u64) - expected).abs() < 1e-9, "{capacity}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn lru_is_exact_and_no_policy_beats_the_optimum() {
    let keys: Vec<u64> = skewed(20_000).collect();
    let trace = trace_of(keys.iter().copied(), Limits::EXACT);
    for capacity in [10, 100, 1_000] {
        let (mut order, mut hits) = (Vec::<u64>::new(), 0);
        for &key in &keys {
            match order.iter().position(|&other| other == key) {
                Some(place) => {
                    order.remove(place);
                    hits += 1;
                }
                None if order.len() == capacity => drop(order.remove(0)),
                None => {}
            }
            order.push(key);
        }
        let lru = ratio(&trace, Method::Policy(Kind::Lru), capacity as u64);
        assert!((lru - f64::from(hits) / keys.len() as f64).abs() < 1e-9);
        let tiny_lfu = ratio(&trace, Method::Policy(Kind::TinyLfu), capacity as u64);
        let optimum = ratio(&trace, Method::Optimum, capacity as u64);
        assert!(optimum >= lru && optimum >= tiny_lfu, "{optimum} {lru} {tiny_lfu}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn a_sample_has_nearly_the_hit_ratios_of_all_keys() {
    let all = trace_of(skewed(400_000), Limits::EXACT);
    let sample =
        trace_of(skewed(400_000), Limits { max_keys: 16_000, exempt_accesses: 0, max_accesses: usize::MAX });
    assert!(sample.is_sampled() && sample.sampled_keys() <= 16_000);
    let about = sample.distinct_keys() as f64 / all.distinct_keys() as f64;
    assert!((0.9..1.1).contains(&about), "{about}");
    for method in [Method::Policy(Kind::TinyLfu), Method::Policy(Kind::Lru), Method::Optimum] {
        for capacity in [1_000, 5_000, 20_000] {
            let (exact, sampled) = (ratio(&all, method, capacity), ratio(&sample, method, capacity));
            assert!((exact - sampled).abs() < 0.03, "{method:?} at {capacity}: {exact}, sampled {sampled}");
        }
    }
    let Ok(too_small) = sample.hit_ratio(Method::Optimum, 1, || Ok::<(), Infallible>(()));
    assert_eq!(too_small, None);
}

#[test]
fn lines_may_end_in_any_chunk() {
    let text = b"\xef\xbb\xbfone\r\ntwo\n\none\nlast";
    for size in 3..=text.len() {
        let (mut lines, mut trace) = (KeyLines::default(), Trace::new(Limits::EXACT));
        text.chunks(size).for_each(|chunk| lines.feed(chunk, &mut trace).expect("lines are short"));
        lines.finish(&mut trace);
        assert_eq!((trace.sampled_accesses(), trace.empty_keys()), ([0, 1, 0, 2].as_slice(), 1), "{size}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "slow, and without threads or unsafe code")]
fn a_line_longer_than_a_key_can_be_is_refused() {
    let (mut lines, mut trace) = (KeyLines::default(), Trace::new(Limits::EXACT));
    let chunk = vec![b'x'; 1 << 19];
    assert_eq!(lines.feed(&chunk, &mut trace), Ok(()));
    assert_eq!(lines.feed(&chunk, &mut trace), Ok(()));
    assert_eq!(lines.feed(b"x", &mut trace), Err(LineTooLong));
}
