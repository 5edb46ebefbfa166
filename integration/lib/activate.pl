#!/usr/bin/perl
# Holds listening sockets for one run of a command, as systemd does for a socket unit: ADDRESS... -- COMMAND...
# Perl, since every Debian has it. Of IPv6 alone, as BindIPv6Only=ipv6-only.
use strict;
use warnings;
use POSIX qw(dup2);
use Socket qw(:DEFAULT inet_pton getaddrinfo IPPROTO_IPV6 IPV6_V6ONLY);

my @sockets;
while ((my $address = shift) ne '--') {
  my ($host, $port) = $address =~ /^\[?(.*?)\]?:(\d+)$/ or die "no address: $address\n";
  my $six = $host =~ /:/;
  socket(my $socket, $six ? AF_INET6 : AF_INET, SOCK_STREAM, 0) or die "$address: $!\n";
  setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1) or die "$address: $!\n";
  !$six or setsockopt($socket, IPPROTO_IPV6, IPV6_V6ONLY, 1) or die "$address: $!\n";
  my $name = $six ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $host)) : pack_sockaddr_in($port, inet_aton($host));
  bind($socket, $name) && listen($socket, 128) or die "$address: $!\n";
  dup2(fileno($socket), 100 + @sockets) or die "$address: $!\n";
  push @sockets, $socket;
}
dup2(100 + $_, 3 + $_) or die "$!\n" for 0 .. $#sockets;
POSIX::close(100 + $_) for 0 .. $#sockets;
$ENV{LISTEN_FDS} = @sockets;
$ENV{LISTEN_PID} = $$;
$ENV{LISTEN_FDNAMES} = join ':', ('stsrelay.socket') x @sockets;
exec @ARGV or die "$ARGV[0]: $!\n";
