"""What tests of nodes stand on, shipped for users: `network`, datagrams in memory and in virtual time."""
