//! `config/openapi.json`, and whether an answer is as it says: nothing missing, nothing that is not in it.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

use super::http::Answer;

/// The description.
pub struct Description(Value);

impl Description {
    /// As it is in the repository.
    pub fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/openapi.json");
        Self(serde_json::from_slice(&std::fs::read(file).expect("it is there")).expect("JSON"))
    }

    /// Panics unless the answer is one that the description has for this operation.
    pub fn check(&self, method: &str, path: &str, answer: &Answer) {
        let place = format!("{method} {path} {}", answer.status);
        let operation = &self.0["paths"][path][method.to_ascii_lowercase()];
        assert!(operation.is_object(), "{place} is not described");
        let response = self.resolve(&operation["responses"][answer.status.to_string()]);
        let content = response["content"].as_object().unwrap_or_else(|| panic!("{place}: {answer:?}"));
        let (kind, wanted) = content.iter().next().expect("one type");
        assert_eq!(answer.field("content-type"), Some(kind.as_str()), "{place}: {answer:?}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{place}: {answer:?}");
        for name in response["headers"].as_object().into_iter().flat_map(|fields| fields.keys()) {
            assert!(answer.field(name).is_some(), "{place}: {name} is missing: {answer:?}");
        }
        if let Err(fault) = self.holds(&wanted["schema"], &answer.json(), &place) {
            panic!("{fault}\n{}", answer.body);
        }
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => self.0.pointer(name.strip_prefix('#').expect("local")).expect("it is there"),
            None => schema,
        }
    }

    /// The part of JSON Schema that is used; any other keyword is an error, so that none goes unheeded.
    fn holds(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        let fault = |text: String| Err(format!("{place}: {text}: {value}"));
        for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
            let list = || wanted.as_array().expect("a list").iter();
            let good = match keyword.as_str() {
                // Patterns are for who has regular expressions.
                "description" | "title" | "default" | "pattern" => true,
                "$ref" => {
                    self.holds(self.resolve(schema), value, place)?;
                    true
                }
                "type" if wanted.is_array() => list().any(|kind| is_a(kind, value)),
                "type" => is_a(wanted, value),
                "const" => wanted == value,
                "enum" => list().any(|one| one == value),
                "anyOf" => list().any(|one| self.holds(one, value, place).is_ok()),
                "oneOf" => {
                    let results: Vec<_> = list().map(|one| self.holds(one, value, place)).collect();
                    if results.iter().all(Result::is_err) {
                        let faults: Vec<String> = results.into_iter().filter_map(Result::err).collect();
                        return Err(faults.join("; "));
                    }
                    results.iter().filter(|result| result.is_ok()).count() == 1
                }
                "required" => list().all(|name| value.get(name.as_str().expect("a name")).is_some()),
                "properties" => {
                    for (name, member) in value.as_object().into_iter().flatten() {
                        // Others may be added; ours must be told.
                        let Some(schema) = wanted.get(name) else {
                            return fault(format!("{name} is not described"));
                        };
                        self.holds(schema, member, &format!("{place}.{name}"))?;
                    }
                    true
                }
                "items" => {
                    for (nth, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.holds(wanted, item, &format!("{place}[{nth}]"))?;
                    }
                    true
                }
                "maxItems" => value.as_array().is_none_or(|all| all.len() as u64 <= number(wanted)),
                "minimum" => value.as_u64().is_none_or(|found| found >= number(wanted)),
                "maximum" => value.as_u64().is_none_or(|found| found <= number(wanted)),
                "format" => value.as_str().is_none_or(|text| match wanted.as_str() {
                    Some("date-time") => text.parse::<Timestamp>().is_ok(),
                    Some("date") => text.parse::<Date>().is_ok(),
                    other => panic!("format {other:?}"),
                }),
                other => panic!("{place}: {other} is not understood here"),
            };
            if !good {
                return fault(format!("not so: {keyword} {wanted}"));
            }
        }
        Ok(())
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn is_a(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("type {other}"),
    }
}
