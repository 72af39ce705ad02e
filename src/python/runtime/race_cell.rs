//! Values that are made at their first use, and that no thread ever waits for.
//!
//! PyO3's `PyOnceLock`, and its `intern!`, make a thread wait while another one makes the value. The maker detaches before it
//! begins. If the process forks at that moment, the child has no thread that ends the work, and waits for ever. So clippy refuses
//! both of them (`.clippy.toml`). Here several threads may make the value at the same time. The first one counts.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::type_object::PyTypeCheck;
use pyo3::types::PyString;

/// A value that is set once, by the first of the threads that make it.
pub(in crate::python) struct RaceCell<T>(OnceLock<T>);

impl<T> RaceCell<T> {
    pub const fn new() -> Self {
        RaceCell(OnceLock::new())
    }

    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }

    /// Returns the value. If there is none, `make` makes it. If another thread was faster, the new value is dropped.
    pub fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.0.get() {
            return Ok(value);
        }
        let made = make()?;
        // The thread stays attached while it moves the value, so no fork comes in between.
        Ok(self.0.get_or_init(|| made))
    }
}

impl<T: PyTypeCheck> RaceCell<Py<T>> {
    /// Returns an attribute of a module, which the first use imports.
    pub fn import<'py>(&self, py: Python<'py>, module: &str, name: &str) -> PyResult<&Bound<'py, T>> {
        let import = || Ok::<_, PyErr>(py.import(module)?.getattr(name)?.cast_into::<T>()?.unbind());
        self.get_or_try_init(import).map(|object| object.bind(py))
    }
}

/// A `str` as the interpreter interns it, made at its first use.
pub(in crate::python) struct Interned {
    text: &'static str,
    made: RaceCell<Py<PyString>>,
}

impl Interned {
    pub const fn new(text: &'static str) -> Self {
        Interned { text, made: RaceCell::new() }
    }

    #[inline]
    pub fn get<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        if let Some(made) = self.made.get() {
            return made.bind(py);
        }
        self.make(py)
    }

    #[cold]
    fn make<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        let make = || Ok::<_, std::convert::Infallible>(PyString::intern(py, self.text).unbind());
        let Ok(made) = self.made.get_or_try_init(make);
        made.bind(py)
    }
}

/// `interned!(py, "text")` is that `str`, as the interpreter interns it.
macro_rules! interned {
    ($py:expr, $text:expr) => {{
        static NAME: $crate::python::runtime::race_cell::Interned =
            $crate::python::runtime::race_cell::Interned::new($text);
        NAME.get($py)
    }};
}
pub(in crate::python) use interned;
