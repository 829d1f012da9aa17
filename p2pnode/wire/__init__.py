"""The words peers speak: messages, their frames, and bencode. Pure: bytes in, values out."""
