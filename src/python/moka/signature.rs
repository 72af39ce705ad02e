//! [`Signature`]: binds the arguments of a call to parameters, for functions that PyO3 does not wrap. The messages of its
//! errors are those of PyO3.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::python::ffi::Arg;

/// The parameters of a function. Each can be given by position or by name.
pub(crate) struct Signature<const N: usize> {
    /// As an error names the function, such as `Moka.get()`.
    pub function: &'static str,
    pub parameters: [&'static str; N],
    /// So many parameters, the first ones, at most two, have no default.
    pub required: usize,
}

impl<const N: usize> Signature<N> {
    /// The argument of each parameter, if one was given.
    #[cold]
    pub fn bind<'a>(
        &self,
        positional: &[Arg<'a>],
        named: impl Iterator<Item = (Arg<'a>, Arg<'a>)>,
    ) -> PyResult<[Option<Arg<'a>>; N]> {
        let mut bound = [None; N];
        if positional.len() > N {
            return Err(self.too_many(positional.len()));
        }
        for (place, &argument) in bound.iter_mut().zip(positional) {
            *place = Some(argument);
        }
        for (name, argument) in named {
            let parameter = self.parameters.iter().position(|&parameter| is_name(&name, parameter));
            let Some(parameter) = parameter else {
                return Err(self.error(format_args!("got an unexpected keyword argument '{}'", *name)));
            };
            if bound[parameter].replace(argument).is_some() {
                let name = self.parameters[parameter];
                return Err(self.error(format_args!("got multiple values for argument '{name}'")));
            }
        }
        if bound[..self.required].iter().any(Option::is_none) {
            return Err(self.missing(&bound));
        }
        Ok(bound)
    }

    fn error(&self, problem: std::fmt::Arguments<'_>) -> PyErr {
        PyTypeError::new_err(format!("{} {problem}", self.function))
    }

    fn too_many(&self, given: usize) -> PyErr {
        let were = if given == 1 { "was" } else { "were" };
        let required = self.required;
        if required == N {
            self.error(format_args!("takes {N} positional arguments but {given} {were} given"))
        } else {
            self.error(format_args!(
                "takes from {required} to {N} positional arguments but {given} {were} given"
            ))
        }
    }

    fn missing(&self, bound: &[Option<Arg<'_>>; N]) -> PyErr {
        let required = self.parameters.iter().zip(bound).take(self.required);
        let missing: Vec<_> =
            required.filter(|(_, bound)| bound.is_none()).map(|(name, _)| format!("'{name}'")).collect();
        let arguments = if missing.len() == 1 { "argument" } else { "arguments" };
        self.error(format_args!(
            "missing {} required positional {arguments}: {}",
            missing.len(),
            missing.join(" and ")
        ))
    }
}

fn is_name(name: &Arg<'_>, parameter: &str) -> bool {
    name.cast::<PyString>().is_ok_and(|name| name.to_string_lossy() == parameter)
}
