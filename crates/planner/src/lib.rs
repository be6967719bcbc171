//! From cluster facts and host facts to the wanted kernel objects; pure and incremental.
