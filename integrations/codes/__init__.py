"""The ways a member is written to: implementations of `products.members.challenges.CodeSender`."""
