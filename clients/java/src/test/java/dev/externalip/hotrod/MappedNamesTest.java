package dev.externalip.hotrod;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;

import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import io.netty.channel.embedded.EmbeddedChannel;
import io.netty.handler.codec.dns.DatagramDnsQuery;
import io.netty.handler.codec.dns.DatagramDnsResponse;
import io.netty.handler.codec.dns.DefaultDnsQuestion;
import io.netty.handler.codec.dns.DnsRecordType;
import io.netty.handler.codec.dns.DnsSection;

class MappedNamesTest {
    @TempDir
    Path directory;
    private AddressMap map;
    private EmbeddedChannel resolver;

    @BeforeEach
    void open() throws Exception {
        Path file = Files.writeString(directory.resolve("nat-map.json"),
            "{\"infinispan-0.infinispan.data.svc:11222\": {\"host\": \"203.0.113.1\", \"port\": 11222}}");
        map = AddressMap.open(Settings.file(file));
        resolver = new EmbeddedChannel(new MappedNames(map));
    }

    @AfterEach
    void close() {
        resolver.finishAndReleaseAll();
        map.close();
    }

    private static DatagramDnsQuery question(String name, DnsRecordType type) {
        var query = new DatagramDnsQuery(null, new InetSocketAddress("127.0.0.1", 53), 7);
        query.addRecord(DnsSection.QUESTION, new DefaultDnsQuestion(name, type));
        return query;
    }

    @Test
    void aMembersNameIsAnsweredHereWhateverItsCase() {
        for (DnsRecordType type : new DnsRecordType[] {DnsRecordType.A, DnsRecordType.AAAA}) {
            resolver.writeOutbound(question("Infinispan-0.infinispan.data.svc", type));
            assertNull(resolver.readOutbound(), "nobody else is asked");
            DatagramDnsResponse answer = resolver.readInbound();
            assertEquals(7, answer.id());
            assertEquals(type, answer.recordAt(DnsSection.ANSWER).type());
            answer.release();
        }
    }

    @Test
    void otherNamesAreAskedForElsewhere() {
        DatagramDnsQuery query = question("infinispan-1.infinispan.data.svc", DnsRecordType.A);
        resolver.writeOutbound(query);
        assertSame(query, resolver.readOutbound());
        query.release();
        assertNull(resolver.readInbound());
    }
}
