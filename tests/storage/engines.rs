//! HDFS as Iceberg and DataFusion see it.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::TryStreamExt;
use lakesmith::storage::{CloseBarrier, Create};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::Area;

#[tokio::test]
async fn iceberg_writes_and_reads_files() {
    let area = Area::new();
    let barrier = CloseBarrier::new();
    let deferred = area.storages.file_io_deferred(&barrier);
    deferred.new_output(area.at("m/whole")).unwrap().write(Bytes::from_static(b"whole")).await.unwrap();
    let mut writer = deferred.new_output(area.at("m/stream")).unwrap().writer().await.unwrap();
    writer.write(Bytes::from_static(b"str")).await.unwrap();
    writer.write(Bytes::from_static(b"eam")).await.unwrap();
    writer.close().await.unwrap();
    barrier.wait().await.unwrap();

    let io = area.storages.file_io();
    assert_eq!(io.new_input(area.at("m/whole")).unwrap().read().await.unwrap(), "whole");
    let input = io.new_input(area.at("m/stream")).unwrap();
    assert_eq!(input.metadata().await.unwrap().size, 6);
    assert_eq!(input.reader().await.unwrap().read(1..4).await.unwrap(), "tre");
    io.new_output(area.at("m/whole")).unwrap().write(Bytes::from_static(b"again")).await.unwrap();
    assert_eq!(io.new_input(area.at("m/whole")).unwrap().read().await.unwrap(), "again");
    io.delete(area.at("m/whole")).await.unwrap();
    assert!(!io.exists(area.at("m/whole")).await.unwrap());
    let error = io.new_input(area.at("m/whole")).unwrap().read().await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
    io.delete_prefix(area.at("m")).await.unwrap();
    assert!(!io.exists(area.at("m/stream")).await.unwrap());
    area.remove().await;
}

#[tokio::test]
async fn datafusion_reads_parquet_through_the_object_store() {
    let area = Area::new();
    let mut parquet = Vec::new();
    let column = Int64Array::from_iter_values(0..1_000);
    let rows = RecordBatch::try_from_iter([("number", Arc::new(column) as _)]).unwrap();
    let mut writer = ArrowWriter::try_new(&mut parquet, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    for name in ["gold/window_date=a/1.parquet", "gold/window_date=b/2.parquet"] {
        area.storages.write_file(&area.at(name), Bytes::from(parquet.clone()), Create::New).await.unwrap();
    }
    let context = SessionContext::new();
    area.storages.register_object_stores(&context.runtime_env(), &area.root).unwrap();
    context.register_parquet("gold", area.at("gold/"), ParquetReadOptions::default()).await.unwrap();
    let rows =
        context.sql("select count(*) n, sum(number) s from gold where number >= 500").await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&rows).unwrap().to_string();
    assert!(text.contains("| 1000 | 749500 |"), "{text}");
    area.remove().await;
}

#[tokio::test]
async fn the_object_store_reads_ranges_lists_and_refuses_to_write() {
    let area = Area::new();
    for (name, content) in [("d/a", "0123456789"), ("d/at=10%3A00/b", "b"), ("e", "e")] {
        area.storages.write_file(&area.at(name), Bytes::from_static(content.as_bytes()), Create::New).await.unwrap();
    }
    let context = SessionContext::new();
    area.storages.register_object_stores(&context.runtime_env(), &area.root).unwrap();
    let root = area.storages.object_location(&area.root).unwrap();
    let store = context.runtime_env().object_store(&root.store).unwrap();
    let at = |name: &str| area.storages.object_location(&area.at(name)).unwrap().path;

    assert_eq!(store.head(&at("d/a")).await.unwrap().size, 10);
    assert_eq!(store.get(&at("d/a")).await.unwrap().bytes().await.unwrap(), "0123456789");
    assert_eq!(store.get_range(&at("d/a"), 2..4).await.unwrap(), "23");
    let ranges = store.get_ranges(&at("d/a"), &[8..10, 0..1, 3..3]).await.unwrap();
    assert_eq!(ranges, [Bytes::from_static(b"89"), Bytes::from_static(b"0"), Bytes::new()]);
    assert!(store.get_ranges(&at("d/a"), &[0..1, 8..11]).await.is_err());
    assert!(matches!(store.head(&at("d/absent")).await, Err(object_store::Error::NotFound { .. })));
    assert!(matches!(store.head(&at("d")).await, Err(object_store::Error::NotFound { .. })), "a directory is no object");

    let mut listed: Vec<_> = store.list(Some(&at("d"))).map_ok(|meta| meta.location).try_collect().await.unwrap();
    listed.sort();
    assert_eq!(listed, [at("d/a"), at("d/at=10%3A00/b")]);
    let direct = store.list_with_delimiter(Some(&at("d"))).await.unwrap();
    assert_eq!(direct.common_prefixes, [at("d/at=10%3A00")]);
    assert_eq!(direct.objects.len(), 1);
    assert!(store.list(Some(&at("absent"))).try_collect::<Vec<_>>().await.unwrap().is_empty());
    assert!(matches!(store.put(&at("f"), PutPayload::new()).await, Err(object_store::Error::NotSupported { .. })));
    assert!(matches!(store.delete(&at("d/a")).await, Err(object_store::Error::NotSupported { .. })));
    area.remove().await;
}
