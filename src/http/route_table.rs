//! Finds the documented operation of a request before the router runs: for limits, metrics and `Allow`.

use std::collections::HashMap;

use poem::http::Method;

use super::operation::Operation;

/// The documented paths.
#[derive(Debug)]
pub struct RouteTable {
    /// Paths without parameters. Most requests are for one of these, and each looks for its path twice: for its metrics
    /// (`middleware/observe.rs`) and for its limits (`middleware/admission.rs`).
    literal: HashMap<String, DocumentedRoute>,
    /// Paths with parameters; those with fewer first.
    parameterized: Vec<DocumentedRoute>,
}

/// A documented operation with its metadata.
#[derive(Debug)]
pub struct RoutedOperation {
    /// The path with its parameters in braces.
    pub path: String,
    /// The method in capitals.
    pub method: String,
    /// The metadata.
    pub operation: &'static Operation,
}

/// A documented path with its operations.
#[derive(Debug)]
pub struct DocumentedRoute {
    /// The path with its parameters in braces.
    pub template: String,
    /// Segments of the path; `None` for a parameter.
    segments: Vec<Option<String>>,
    /// Operations by their methods, which are in capitals.
    operations: Vec<(String, &'static Operation)>,
}

impl RouteTable {
    /// Groups operations by their paths.
    #[must_use]
    pub fn new(operations: impl Iterator<Item = RoutedOperation>) -> Self {
        let mut routes: Vec<DocumentedRoute> = Vec::new();
        for RoutedOperation { path, method, operation } in operations {
            match routes.iter_mut().find(|route| route.template == path) {
                Some(route) => route.operations.push((method, operation)),
                None => routes.push(DocumentedRoute::new(path, (method, operation))),
            }
        }
        // Paths with fewer parameters come first: a literal segment takes precedence over a parameter, as in the router.
        let parameters = |route: &DocumentedRoute| route.segments.iter().filter(|segment| segment.is_none()).count();
        routes.sort_by_key(parameters);
        let (literal, parameterized): (Vec<_>, _) = routes.into_iter().partition(|route| parameters(route) == 0);
        Self { literal: literal.into_iter().map(|route| (route.template.clone(), route)).collect(), parameterized }
    }

    /// Returns the documented path that a request's path matches.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&DocumentedRoute> {
        self.literal.get(path).or_else(|| self.parameterized.iter().find(|route| route.matches(path)))
    }

    /// Returns the methods of a path for the header `Allow`: HEAD wherever GET is, OPTIONS everywhere (RFC 9110 section 10.2.1).
    #[must_use]
    pub fn allowed_methods(&self, path: &str) -> String {
        let documented = self.find(path).map(|route| route.operations.iter().map(|(method, _)| method.as_str()).collect());
        // Undocumented paths are the pages and their files.
        let mut methods: Vec<_> = documented.unwrap_or_else(|| vec!["GET"]);
        if let Some(at) = methods.iter().position(|method| *method == "GET") {
            methods.insert(at + 1, "HEAD");
        }
        methods.push("OPTIONS");
        methods.join(", ")
    }
}

impl DocumentedRoute {
    fn new(template: String, first: (String, &'static Operation)) -> Self {
        let segment = |text: &str| (!text.starts_with('{')).then(|| text.to_owned());
        Self { segments: template.split('/').map(segment).collect(), template, operations: vec![first] }
    }

    /// Returns whether a path matches the template.
    fn matches(&self, path: &str) -> bool {
        let mut given = path.split('/');
        self.segments.iter().all(|known| given.next().is_some_and(|given| known.as_deref().is_none_or(|known| known == given)))
            && given.next().is_none()
    }

    /// Returns the operation of a method; that of GET for HEAD.
    #[must_use]
    pub fn operation(&self, method: &Method) -> Option<&'static Operation> {
        let name = if method == Method::HEAD { "GET" } else { method.as_str() };
        self.operations.iter().find(|(known, _)| known == name).map(|(_, operation)| *operation)
    }
}
