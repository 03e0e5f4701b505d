//! The domains that nodes share: themselves, switches, racks, sites and operators. A switch or a rack is
//! one of its site; what a site does not tell is not known.

use crate::cluster::{At, Cluster, NodeState, SiteState};
use crate::wire::mumian::api::v1 as api;

/// Whether two nodes are in one domain; none where that is not known.
pub fn shares(cluster: &Cluster, a: At, b: At, topology: api::Topology) -> Option<bool> {
    let operator = |at: At| &cluster.site(at).site.operator_id;
    match topology {
        api::Topology::Node | api::Topology::Unspecified => Some(a == b),
        api::Topology::Switch | api::Topology::Rack => {
            let (one, other) = (within_site(node(cluster, a), topology), within_site(node(cluster, b), topology));
            let is_known = a == b || !(one.is_empty() || other.is_empty());
            (a.site != b.site || is_known).then(|| a.site == b.site && one == other)
        }
        api::Topology::Site => Some(a.site == b.site),
        api::Topology::Operator => Some(operator(a) == operator(b)),
    }
}

/// What the nodes of one domain have in common, and no others; none where it is not known. `position` is the site's.
pub fn key<'a>(
    site: &'a SiteState,
    node: &'a NodeState,
    position: u32,
    topology: api::Topology,
) -> Option<(Option<u32>, &'a str)> {
    let name = match topology {
        api::Topology::Operator => return Some((None, &site.site.operator_id)),
        api::Topology::Site => "",
        api::Topology::Switch | api::Topology::Rack => {
            Some(within_site(&node.node, topology)).filter(|n| !n.is_empty())?
        }
        api::Topology::Node | api::Topology::Unspecified => &node.node.id,
    };
    Some((Some(position), name))
}

/// Whether it is known in which domain a node is.
pub fn is_known(node: &api::Node, topology: api::Topology) -> bool {
    !matches!(topology, api::Topology::Switch | api::Topology::Rack) || !within_site(node, topology).is_empty()
}

/// Whether a domain holds all nodes of a site, or none.
pub fn holds_sites(topology: api::Topology) -> bool {
    matches!(topology, api::Topology::Site | api::Topology::Operator)
}

/// The domain of a node, in words.
pub fn named(cluster: &Cluster, at: At, topology: api::Topology) -> String {
    let (site, node) = (&cluster.site(at).site, node(cluster, at));
    let name = match topology {
        api::Topology::Site => &site.id,
        api::Topology::Operator => &site.operator_id,
        api::Topology::Switch | api::Topology::Rack => within_site(node, topology),
        api::Topology::Node | api::Topology::Unspecified => &node.id,
    };
    format!("{} {name}", word(topology))
}

/// A kind of domain, in words.
pub fn word(topology: api::Topology) -> &'static str {
    match topology {
        api::Topology::Node | api::Topology::Unspecified => "node",
        api::Topology::Switch => "switch",
        api::Topology::Rack => "rack",
        api::Topology::Site => "site",
        api::Topology::Operator => "operator",
    }
}

/// Its switch or rack; empty: not known.
fn within_site(node: &api::Node, topology: api::Topology) -> &str {
    if topology == api::Topology::Rack {
        &node.rack_id
    } else {
        &node.switch_id
    }
}

fn node(cluster: &Cluster, at: At) -> &api::Node {
    &cluster.node(at).node
}
