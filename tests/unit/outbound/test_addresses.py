"""Where events may go: URLs that are registered, and addresses that are connected to."""

import pytest

from integrations.outbound.addresses import EndpointUrlRefused, check_url, may_connect

DENIED = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.1.1 192.175.48.1 198.18.0.1
198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::ffff:8.8.8.8 ::ffff:127.0.0.1 ::8.8.8.8 64:ff9b::808:808 64:ff9b:1::1 100::1 2001::1 2001:20::1 2001:db8::1
2002:808:808::1 2002:7f00:1::1 2620:4f:8000::1 3ffe::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0
2606:4700::1111%eth0 fec0::1 ff02::1 4000::1 not-an-address 1.2.3 0x7f000001 2130706433 010.0.0.1
"""
PUBLIC = """
1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 223.255.255.255 2001:4860:4860::8888
2606:4700::1111 2a00:1450::1
"""
REFUSED = r"""
http://hooks.example.com/ ftp://hooks.example.com/ https://hooks.example.com:8443/ https://hooks.example.com:80/
https://user@hooks.example.com/ https://user:pass@hooks.example.com/ https://@hooks.example.com/
https://127.0.0.1/ https://127.1/ https://2130706433/ https://0x7f.0.0.1/ https://0177.0.0.1/ https://8.8.8.8/
https://[::1]/ https://[2001:4860:4860::8888]/ https://[::ffff:127.0.0.1]/ https://localhost/ https://a.localhost/
https://printer.local/ https://metadata.google.internal/ https://hooks/ https://hooks.example.com./ https:///path
https://hooks.example.com/#fragment https://hooks.example.com\@127.0.0.1/ https://häuser.example.com/
https://-a.example.com/ https://a_b.example.com/ https://hooks.example.com:0443x/ https://[::1 hooks.example.com
https://example.com:99999/ //hooks.example.com/ javascript:alert(1) https://1.1.1.1.in-addr.arpa/
"""


def test_no_address_is_connected_to_that_is_not_a_public_one() -> None:
    assert [one for one in DENIED.split() if may_connect(one, loopback=False)] == []
    assert [one for one in PUBLIC.split() if not may_connect(one, loopback=False)] == []


def test_a_name_for_this_machine_leads_to_this_machine_and_nowhere_else() -> None:
    reached = {one for one in (DENIED + PUBLIC).split() if may_connect(one, loopback=True)}
    assert reached == {"127.0.0.1", "127.255.255.254", "::1"}


def test_no_other_url_is_registered_than_https_to_a_public_name() -> None:
    odd = ["https://a.example.com/ x", "https://a.example.com/\n", f"https://a.example.com/{'x' * 2048}"]
    assert [url for url in [*REFUSED.split(), *odd] if taken(url)] == []


def taken(url: str) -> bool:
    try:
        check_url(url, loopback=False)
    except EndpointUrlRefused:
        return False
    return True


def test_a_public_name_is_taken_and_this_machine_in_a_sandbox_alone() -> None:
    for url in (
        "https://hooks.acme.example/mizan?x=1",
        "https://HOOKS.acme.example:443/",
        "https://xn--p1b6ci4b4b3a.xn--11b5bs3a9aj6g/",
    ):
        target = check_url(url, loopback=False)
        assert (target.port, target.loopback) == (443, False)
    for url in (
        "http://127.0.0.1:4242/x",
        "http://[::1]:4242/",
        "http://localhost:80/",
        "https://localhost:8443/",
    ):
        assert check_url(url, loopback=True).loopback
        with pytest.raises(EndpointUrlRefused):
            check_url(url, loopback=False)
    for url in (
        "http://127.0.0.2:4242/",
        "http://10.0.0.1:4242/",
        "http://hooks.example.com/",
        "http://0.0.0.0:80/",
    ):
        with pytest.raises(EndpointUrlRefused):
            check_url(url, loopback=True)
