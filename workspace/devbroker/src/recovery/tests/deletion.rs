//! A topic that is deleted and created again while somebody still works on the former one.

use super::*;
use crate::partition::{Bounds, NotDeleted};

#[tokio::test]
async fn records_deleted_from_a_former_topic_leave_the_one_of_the_same_name_alone() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path()).await;
    scene.append(0).unwrap();
    scene.core.settled_with_records().await.unwrap();
    let former = scene.partition();
    scene.core.topics.delete("orders").unwrap();
    scene.create("orders").unwrap();
    assert!(matches!(former.delete_before(2), Err(NotDeleted::TopicDeleted)));
    former.start_moved();
    let empty = Bounds {
        start: 0,
        end: 0,
        stable: 0,
    };
    assert_eq!(former.bounds(), empty);
    scene.append(0).unwrap();
    scene.core.settled_with_records().await.unwrap();
    scene.close().await;

    let scene = Scene::open(folder.path()).await;
    let bounds = scene.partition().bounds();
    assert_eq!((bounds.start, bounds.end), (0, 2));
    scene.close().await;
}

#[tokio::test]
async fn the_partitions_of_a_topic_refuse_all_before_its_name_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::open(folder.path()).await;
    let topics = &scene.core.topics;
    for _ in 0..20 {
        let topic = topics.create("wide", 50, TopicConfig::default(), false).unwrap();
        let last = topic.partition(49).unwrap();
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while topics.get("wide").is_some() {
                    std::hint::spin_loop();
                }
                last.delete_before(0)
            });
            topics.delete("wide").unwrap();
            let deleted = watcher.join().unwrap();
            assert!(matches!(deleted, Err(NotDeleted::TopicDeleted)));
        });
    }
    scene.close().await;
}
