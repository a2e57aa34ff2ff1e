"""The store and everything it is measured against, each behind one `work.Peer`."""
