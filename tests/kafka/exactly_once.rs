//! What was acknowledged stands on the topics exactly once.

use crate::client::{Client, Shape, sums};
use crate::edge::{Edge, wait_for_export};
use crate::sending::send;
use crate::shared;

#[test]
fn what_is_acknowledged_is_on_the_topics_once() {
    let broker = shared::broker();
    let edge = Edge::new("plain", &broker.direct(), &broker.direct());
    let mut clients = [Client::new(1, Shape::Lines(20), 1), Client::new(2, Shape::Single, 1)];
    for round in 0..3 {
        let server = edge.start();
        clients.iter_mut().for_each(|client| send(&server, client, 20));
        wait_for_export(&server);
        if round % 2 == 0 { server.stop() } else { server.kill() }
    }
    let sum = edge.check(&sums(&clients));
    assert!(sum.clicks() > 0 && sum.checkpoint(&edge.id)["txn_seq"].as_u64() > Some(2), "{}", sum.0);
}
