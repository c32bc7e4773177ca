//! What was acknowledged stands on the topics exactly once.

use crate::client::{Client, Connection, Shape, sums};
use crate::edge::{Edge, wait_for_export};
use crate::shared;

#[test]
fn what_is_acknowledged_is_on_the_topics_once() {
    let broker = shared::broker();
    let edge = Edge::new("plain", &broker.direct(), &broker.direct());
    let mut clients = [Client::new(1, Shape::Lines(20), 1), Client::new(2, Shape::Single, 1)];
    for round in 0..3 {
        let server = edge.start();
        for client in &mut clients {
            let mut connection = Connection::open(server.clicks).expect("it listens");
            (0..20).for_each(|_| client.once(&mut connection).expect("it answers"));
        }
        wait_for_export(&server);
        if round % 2 == 0 { server.stop() } else { server.kill() }
    }
    let sum = edge.check(&sums(&clients));
    assert!(sum.clicks() > 0 && sum.checkpoint(&edge.id)["txn_seq"].as_u64() > Some(2), "{}", sum.0);
}
