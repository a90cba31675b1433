//! TOML as a tree with places.

use serde_json::json;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    places::TextPlaces,
    tree::{FileContent, FileEntry, FileFault, FileNode, FilePlace, FileTable},
};

/// Reads a TOML document.
pub fn read(text: &str) -> Result<FileNode, FileFault> {
    let places = TextPlaces::of(text);
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        FileFault::new(places.at(at), error.message())
    })?;
    Ok(FileNode {
        place: FilePlace { line: 1, column: 1 },
        content: FileContent::Table(table(&places, document.get_ref())?),
    })
}

fn table(places: &TextPlaces<'_>, table: &DeTable<'_>) -> Result<FileTable, FileFault> {
    let mut entries: Vec<(&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut read = FileTable::default();
    for (key, value) in entries {
        read.add(FileEntry {
            key: key.get_ref().clone().into_owned(),
            place: places.at(key.span().start),
            value: node(places, value)?,
        })?;
    }
    Ok(read)
}

fn node(places: &TextPlaces<'_>, value: &Spanned<DeValue<'_>>) -> Result<FileNode, FileFault> {
    let place = places.at(value.span().start);
    let beyond = || FileFault::new(place, "the number is too large");
    let scalar = match value.get_ref() {
        DeValue::Array(list) => {
            let nodes = list.iter().map(|value| node(places, value));
            let content = FileContent::List(nodes.collect::<Result<_, _>>()?);
            return Ok(FileNode { place, content });
        }
        DeValue::Table(inner) => {
            let content = FileContent::Table(table(places, inner)?);
            return Ok(FileNode { place, content });
        }
        DeValue::String(string) => json!(string),
        DeValue::Boolean(boolean) => json!(boolean),
        DeValue::Datetime(moment) => json!(moment.to_string()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            json!(number.map_err(|_| beyond())?)
        }
        DeValue::Float(number) => {
            let number: f64 = number.as_str().parse().map_err(|_| beyond())?;
            match number.is_finite() {
                true => json!(number),
                false => return Err(FileFault::new(place, "must be a finite number")),
            }
        }
    };
    let content = FileContent::Scalar(scalar);
    Ok(FileNode { place, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_places() {
        let text =
            "name = \"x\"\n[[step]]\n  a = [1, 2.5,\n   true]\n[[step]]\nb = {c = 1979-05-27}\n";
        let read = read(text).expect("TOML");
        let expected =
            json!({"name": "x", "step": [{"a": [1, 2.5, true]}, {"b": {"c": "1979-05-27"}}]});
        assert_eq!(read.json(), expected);
        let steps = read.table("").expect("a table").get("step").expect("steps");
        let first = steps.list("step").expect("a list")[0]
            .table("")
            .expect("a table");
        let place = first.place_of("a").expect("a");
        assert_eq!(place.to_string(), "3:3");
        let list = first.get("a").expect("a").list("a").expect("a list");
        assert_eq!(list[2].place.to_string(), "4:4");
    }

    #[test]
    fn mistakes_are_named_with_their_places() {
        for (text, place) in [
            ("a = 1\nb = \n", "2:5"),
            ("a = 1\na = 2\n", "2:1"),
            ("\n[x\n", "2:3"),
            ("a = inf", "1:5"),
            ("a = 99999999999999999999", "1:5"),
        ] {
            let fault = read(text).expect_err("a mistake");
            assert_eq!(fault.place.to_string(), place, "{text}: {fault}");
        }
    }
}
