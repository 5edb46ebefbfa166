//! The description of all this (OpenAPI 3.1), as a program reads it.

use super::{Reply, Routes, json};

/// `config/openapi.json`, as it was when this was built.
const DESCRIPTION: &str = include_str!("../../../../config/openapi.json");

pub(super) fn routes(routes: &mut Routes) {
    routes.get("/openapi.json", description);
}

async fn description() -> Reply {
    Ok(json(DESCRIPTION))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{ROOT, quick, slow};
    use super::*;

    #[test]
    fn the_description_has_every_route_and_no_other() {
        let description: serde_json::Value = serde_json::from_str(DESCRIPTION).unwrap();
        assert_eq!(description["servers"][0]["url"], ROOT);
        let described: BTreeSet<(String, String)> = description["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                methods.map(move |method| (format!("{ROOT}{path}"), method.to_ascii_uppercase()))
            })
            .collect();
        // HEAD and OPTIONS come with every path.
        let [quick, slow] = [quick(), slow()];
        let routes = quick.list().chain(slow.list()).filter(|(_, method)| *method != "HEAD");
        let routes: BTreeSet<(String, String)> =
            routes.map(|(path, method)| (path, method.to_owned())).collect();
        assert_eq!(described, routes);
    }
}
