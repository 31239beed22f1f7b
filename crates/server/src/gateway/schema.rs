//! The messages of the client API as the JSON mapping sees them: names, numbers and kinds.

mod messages;

pub(super) use messages::METHODS;

/// One method of a gRPC service.
#[derive(Debug)]
pub(super) struct Method {
    /// `/package.Service/Method`
    pub(super) path: &'static str,
    pub(super) input: &'static Message,
    pub(super) output: &'static Message,
    pub(super) client_streaming: bool,
    pub(super) server_streaming: bool,
}

/// The fields of a message in the order of its declaration, which is the order of the output.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) fields: &'static [Field],
}

/// A field under its two names.
#[derive(Debug)]
pub(super) struct Field {
    /// As declared; what the output uses.
    pub(super) name: &'static str,
    /// In lower camel case; the input may use either.
    pub(super) json: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// Full name of the oneof that the field is a member of.
    pub(super) oneof: Option<&'static str>,
}

/// The kinds that the schemas use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Bool,
    Int64,
    Uint32,
    Uint64,
    String,
    Bytes,
    Enum(&'static Enum),
    Message(&'static Message),
}

/// Names and numbers of an enum.
#[derive(Debug)]
pub(super) struct Enum {
    pub(super) values: &'static [(&'static str, i32)],
}

impl Message {
    /// The field of an input name and its index; the camel-case name goes first, as in Go.
    pub(super) fn by_name(&self, name: &str) -> Option<(usize, &'static Field)> {
        let find = |matches: fn(&Field, &str) -> bool| {
            let mut fields = self.fields.iter().enumerate();
            fields.find(|(_, field)| matches(field, name))
        };
        find(|field, name| field.json == name).or_else(|| find(|field, name| field.name == name))
    }

    /// The field of a wire number and its index.
    pub(super) fn by_number(&self, number: u32) -> Option<(usize, &'static Field)> {
        let mut fields = self.fields.iter().enumerate();
        fields.find(|(_, field)| field.number == number)
    }
}

impl Kind {
    /// The name of the kind in the schema language.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int64 => "int64",
            Kind::Uint32 => "uint32",
            Kind::Uint64 => "uint64",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Enum(_) => "enum",
            Kind::Message(_) => "message",
        }
    }

    /// Whether the wire form is a length and that many bytes, rather than a varint.
    pub(super) fn is_delimited(self) -> bool {
        matches!(self, Kind::String | Kind::Bytes | Kind::Message(_))
    }
}

impl Enum {
    pub(super) fn number(&self, name: &str) -> Option<i32> {
        let mut values = self.values.iter();
        values
            .find(|(known, _)| *known == name)
            .map(|(_, number)| *number)
    }

    pub(super) fn name(&self, number: i32) -> Option<&'static str> {
        let mut values = self.values.iter();
        values
            .find(|(_, known)| *known == number)
            .map(|(name, _)| *name)
    }
}
