//! Lists (api.md 1.9).

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// One page of a list.
///
/// Written as `{"data": […], "pagination": {…}}`. Read from that, from a bare array, and
/// from the older `{"shapes": […]}`, `{"disks": […]}` and `{"templates": […]}`. A page
/// without any list is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Where the page lies in the whole; absent in the older forms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pagination: Option<Pagination>,
}

/// Where a page lies in the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pagination {
    /// Rows that match, on all pages.
    pub total: u64,
    /// Largest number of rows of this page, after clamping.
    #[serde(default)]
    pub limit: u64,
    /// Rows before this page.
    #[serde(default)]
    pub offset: u64,
    /// Rows of this page.
    #[serde(default)]
    pub count: u64,
}

impl<T> Page<T> {
    /// A page of `total` rows that begins after `offset` of them.
    pub fn new(data: Vec<T>, total: u64, limit: u64, offset: u64) -> Self {
        let count = data.len() as u64;
        Self { data, pagination: Some(Pagination { total, limit, offset, count }) }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Page<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PageVisitor(PhantomData))
    }
}

struct PageVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for PageVisitor<T> {
    type Value = Page<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or a page of one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Page<T>, A::Error> {
        let mut data = Vec::new();
        while let Some(row) = rows.next_element()? {
            data.push(row);
        }
        Ok(Page { data, pagination: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page<T>, A::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Key {
            Data,
            Shapes,
            Disks,
            Templates,
            Pagination,
            #[serde(other)]
            Other,
        }
        let (mut data, mut pagination) = (None, None);
        while let Some(key) = map.next_key()? {
            match key {
                Key::Pagination => pagination = map.next_value()?,
                Key::Other => drop(map.next_value::<de::IgnoredAny>()?),
                Key::Data | Key::Shapes | Key::Disks | Key::Templates => {
                    if data.is_some() {
                        return Err(de::Error::custom("a page with two lists"));
                    }
                    data = Some(map.next_value::<Option<Vec<T>>>()?.unwrap_or_default());
                }
            }
        }
        let data = data.ok_or_else(|| de::Error::missing_field("data"))?;
        Ok(Page { data, pagination })
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    fn read(json: &str) -> Result<Page<u32>, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn the_page_of_the_contract_goes_both_ways() {
        let page: Page<u32> =
            both_ways(r#"{"data":[7],"pagination":{"total":1,"limit":50,"offset":0,"count":1}}"#);
        assert_eq!(page, Page::new(vec![7], 1, 50, 0));
    }

    #[test]
    fn every_older_form_is_read() {
        for json in [
            "[1,2]",
            r#"{"shapes":[1,2]}"#,
            r#"{"disks":[1,2],"next":{"a":1}}"#,
            r#"{"templates":[1,2],"pagination":null}"#,
            r#"{"data":[1,2]}"#,
        ] {
            let page = read(json).unwrap();
            assert_eq!((page.data, page.pagination), (vec![1, 2], None), "{json}");
        }
        let page = read(r#"{"pagination":{"total":0},"data":null}"#).unwrap();
        assert!(page.data.is_empty());
        assert_eq!(page.pagination.unwrap().total, 0);
    }

    #[test]
    fn a_page_without_exactly_one_list_is_refused() {
        for json in ["{}", r#"{"rows":[1]}"#, r#"{"data":[1],"shapes":[2]}"#, "null", r#""x""#] {
            assert!(read(json).is_err(), "{json}");
        }
        assert!(read(r#"{"data":[1],"pagination":{"limit":50}}"#).is_err(), "no total");
    }
}
