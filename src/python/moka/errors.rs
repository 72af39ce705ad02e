//! The messages of loads that would wait for ever.

use pyo3::prelude::*;

use crate::python::moka::convert;

/// The longest text of a key in a message, in characters.
const MAX_KEY_CHARS: usize = 100;

fn show_key(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let mut text = convert::show(key)?;
    if let Some((end, _)) = text.char_indices().nth(MAX_KEY_CHARS) {
        text.truncate(end);
        text += "...";
    }
    Ok(text)
}

/// The message if the initializer of a key asks for the key's own value.
#[cold]
pub(in crate::python) fn own_key_message(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let key = show_key(key)?;
    Ok(format!(
        "the initializer of a key asked for that very key, {key}: it would wait for itself for ever; \
         let it compute the value from other keys"
    ))
}

/// The message if threads wait for each other's initializers.
#[cold]
pub(in crate::python) fn deadlock_message(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let key = show_key(key)?;
    Ok(format!(
        "threads would wait for each other's initializers in a circle: this one asked for key {key}; \
         let all initializers ask for further keys in one order, or ask for those keys before the call"
    ))
}
