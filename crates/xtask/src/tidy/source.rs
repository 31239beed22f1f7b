//! Rules about Rust code, checked on its syntax tree.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;

/// Longest function that is allowed without an exception, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;
/// The same for a test, where a table of cases is one function.
const TEST_LINES: usize = 150;

/// Macros that mean "not done" or "left over from a hunt".
const LEFT_OVERS: [&str; 3] = ["todo", "dbg", "unimplemented"];

/// Words that carry nothing in a doc comment.
const FILLERS: [&str; 24] = [
    "a", "an", "the", "of", "to", "for", "this", "that", "is", "it", "its", "in", "get", "gets",
    "set", "sets", "return", "returns", "new", "create", "creates", "struct", "function", "type",
];

/// Checks one Rust file.
pub(super) fn check(path: &str, content: &str) -> Vec<Finding> {
    match syn::parse_file(content) {
        Ok(file) => {
            let mut visitor = Rules {
                path,
                findings: Vec::new(),
            };
            visitor.visit_file(&file);
            visitor.findings
        }
        Err(error) => vec![Finding {
            rule: "syntax",
            path: path.into(),
            item: "-".into(),
            line: error.span().start().line,
            size: 1,
            why: error.to_string(),
        }],
    }
}

struct Rules<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl Rules<'_> {
    fn report(&mut self, rule: &'static str, item: String, span: Span, size: usize, why: String) {
        let line = span.start().line;
        self.findings.push(Finding {
            rule,
            path: self.path.into(),
            item,
            line,
            size,
            why,
        });
    }

    fn function(&mut self, attributes: &[syn::Attribute], head: &syn::Signature, end: Span) {
        let name = head.ident.to_string();
        let size = end.end().line + 1 - head.span().start().line;
        let test = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        let limit = if test { TEST_LINES } else { FUNCTION_LINES };
        if size > limit {
            let why = format!("{name} has {size} lines, at most {limit}");
            self.report("long-function", name.clone(), head.span(), size, why);
        }
        if attributes.iter().any(|one| one.path().is_ident("ignore")) {
            let why = format!("{name} is ignored: a test runs or goes");
            self.report("ignored-test", name.clone(), head.span(), 1, why);
        }
        self.doc(attributes, &head.ident);
    }

    /// A comment whose every word is in the name says nothing.
    fn doc(&mut self, attributes: &[syn::Attribute], name: &syn::Ident) {
        let doc: String = attributes.iter().filter_map(doc_line).collect();
        if doc.trim().is_empty() {
            return;
        }
        let known = words(&name.to_string());
        let says = |word: &String| !FILLERS.contains(&word.as_str()) && !known.contains(word);
        if !words(&doc).iter().any(says) {
            let why = format!("the comment of {name} only repeats its name");
            self.report("empty-doc", name.to_string(), name.span(), 1, why);
        }
    }
}

fn doc_line(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    let syn::Expr::Lit(literal) = &pair.value else {
        return None;
    };
    match &literal.lit {
        syn::Lit::Str(text) if pair.path.is_ident("doc") => Some(format!("{}\n", text.value())),
        _ => None,
    }
}

/// Lower-case words of prose or of an identifier, plural `s` removed.
fn words(text: &str) -> Vec<String> {
    let mut spaced = String::new();
    for character in text.chars() {
        if character.is_uppercase() {
            spaced.push(' ');
        }
        spaced.extend(character.to_lowercase());
    }
    spaced
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.strip_suffix('s').unwrap_or(word).to_string())
        .collect()
}

impl<'ast> Visit<'ast> for Rules<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        let end = item.default.as_ref().map_or(item.sig.span(), Spanned::span);
        self.function(&item.attrs, &item.sig, end);
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.doc(&item.attrs, &item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.doc(&item.attrs, &item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let Some(name) = &field.ident {
            self.doc(&field.attrs, name);
        }
        visit::visit_field(self, field);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if attribute.path().is_ident("allow") {
            let syn::Meta::List(list) = &attribute.meta else {
                return;
            };
            let tokens = list.tokens.to_string();
            if !tokens.contains("reason") {
                let item = tokens.replace(' ', "");
                let why = format!("allow({item}) says no reason");
                self.report("allow-reason", item, attribute.span(), 1, why);
            }
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last().map(|part| part.ident.to_string());
        if let Some(name) = name.filter(|name| LEFT_OVERS.contains(&name.as_str())) {
            let why = format!("{name}! does not belong on the main line");
            self.report("left-over", name, call.span(), 1, why);
        }
        visit::visit_macro(self, call);
    }
}

#[cfg(test)]
mod tests;
